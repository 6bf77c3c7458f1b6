//! A request as a line that a shell runs.

use modelopt_serve::server::Example;

use super::Reached;

/// A line that sends an example to a model.
pub(super) fn line(reached: &Reached, model: &str, example: &Example) -> String {
    let url = format!("{}/v2/models/{}/infer", reached.url, encoded(model));
    let mut options = String::new();
    if let Some(certificate) = &reached.certificate {
        options.push_str(" --cacert ");
        options.push_str(&quoted(&certificate.display().to_string()));
    }
    match (reached.tokens, reached.api_keys) {
        (true, _) => options += " -H \"Authorization: Bearer $TOKEN\"",
        (false, true) => options += " -H \"X-API-Key: $KEY\"",
        (false, false) => {}
    }
    let json = quoted(&example.json);
    if example.zeros == 0 {
        return format!("curl -sS{options} {} -d {json}", quoted(&url));
    }
    format!(
        "{{ printf %s {json}; head -c {} /dev/zero; }} | curl -sS{options} {} -H \
         'Inference-Header-Content-Length: {}' --data-binary @-",
        example.zeros,
        quoted(&url),
        example.json.len()
    )
}

/// A word of a shell.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._~:/%[]".contains(c);
    if !text.is_empty() && text.chars().all(plain) && !text.contains('[') {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// A part of a path of a URL.
fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reached() -> Reached {
        Reached {
            url: "http://127.0.0.1:8080".to_owned(),
            metrics: None,
            certificate: None,
            tokens: false,
            api_keys: false,
        }
    }

    #[test]
    fn a_line_is_what_a_shell_takes() {
        let small = Example { json: r#"{"it's":1}"#.to_owned(), zeros: 0 };
        assert_eq!(
            line(&reached(), "my model", &small),
            r#"curl -sS http://127.0.0.1:8080/v2/models/my%20model/infer -d '{"it'\''s":1}'"#
        );
        let large = Example { json: "{}".to_owned(), zeros: 400 };
        assert_eq!(
            line(&reached(), "m", &large),
            "{ printf %s '{}'; head -c 400 /dev/zero; } | curl -sS \
             http://127.0.0.1:8080/v2/models/m/infer -H 'Inference-Header-Content-Length: 2' \
             --data-binary @-"
        );
    }

    #[test]
    fn a_line_says_who_asks_and_whom_it_believes() {
        let small = Example { json: "{}".to_owned(), zeros: 0 };
        let certificate = Some("my cert.pem".into());
        let secured = Reached { certificate, tokens: true, ..reached() };
        let text = line(&secured, "m", &small);
        assert!(text.contains(r#"--cacert 'my cert.pem' -H "Authorization: Bearer $TOKEN""#));
        let keyed = Reached { api_keys: true, ..reached() };
        assert!(line(&keyed, "m", &small).contains("-H \"X-API-Key: $KEY\""));
    }
}
