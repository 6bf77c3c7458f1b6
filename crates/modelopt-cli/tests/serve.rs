//! `modelopt serve` from outside, as clients and platforms meet it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use xtask::testdata::fixture;

use crate::support::{PROGRAM, finish, quiet, run, tempdir};

/// No server takes longer for the small models here, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
const SECRET: &str = "a secret that is longer than the hash";

/// A server that is ready to be asked.
struct Served {
    child: Child,
    /// The line of JSON that it says when it has loaded what there is.
    said: Value,
}

impl Served {
    fn start(arguments: &[&str]) -> Self {
        Served::by(Command::new(PROGRAM).arg("serve").args(arguments))
    }

    fn by(command: &mut Command) -> Self {
        quiet(command);
        command.args(["--json", "--port", "0"]).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let (sender, receiver) = channel();
        std::thread::spawn(move || {
            let mut line = String::new();
            out.read_line(&mut line).unwrap();
            sender.send(line).unwrap();
        });
        let line = receiver.recv_timeout(PATIENCE).unwrap();
        let said = serde_json::from_str(&line).unwrap_or_else(|error| {
            let _ = child.kill();
            let mut told = String::new();
            child.stderr.take().unwrap().read_to_string(&mut told).unwrap();
            panic!("{error}: {line}\n{told}")
        });
        Served { child, said }
    }

    fn address(&self) -> String {
        self.said["url"].as_str().unwrap().split_once("://").unwrap().1.to_owned()
    }

    fn ask(&self, path: &str) -> (u16, Value) {
        Client::to(&self.address()).unwrap().ask("GET", path, "", "").unwrap()
    }

    fn example(&self, model: &str) -> String {
        self.said["examples"][model].as_str().unwrap().to_owned()
    }

    fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args([name, &id]).status().unwrap().success());
    }

    /// Waits for its end: the exit code, and what it said on stderr.
    fn end(mut self) -> (Option<i32>, String) {
        let since = Instant::now();
        let code = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status.code();
            }
            assert!(since.elapsed() < PATIENCE, "it does not end");
            std::thread::sleep(Duration::from_millis(10));
        };
        let mut told = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut told).unwrap();
        (code, told)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A connection that is kept.
struct Client {
    stream: BufReader<TcpStream>,
    is_open: bool,
}

impl Client {
    fn to(address: &str) -> std::io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Client { stream: BufReader::new(stream), is_open: true })
    }

    fn ask(
        &mut self,
        method: &str,
        path: &str,
        headers: &str,
        body: &str,
    ) -> std::io::Result<(u16, Value)> {
        let length = body.len();
        let text = format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\n{headers}Content-Length: {length}\r\n\r\n{body}"
        );
        self.stream.get_mut().write_all(text.as_bytes())?;
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if self.stream.read_line(&mut head)? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
        }
        let head = head.to_ascii_lowercase();
        let header = |name: &str| head.lines().find_map(|line| line.strip_prefix(name));
        self.is_open = header("connection: close").is_none();
        let length = header("content-length: ").map_or(0, |text| text.trim().parse().unwrap());
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body)?;
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Ok((status, serde_json::from_slice(&body).unwrap_or(Value::Null)))
    }
}

fn digits() -> String {
    fixture("digits/mlp.onnx").display().to_string()
}

fn pixels() -> String {
    json!({"image": vec![vec![vec![0.5; 8]; 8]; 1]}).to_string()
}

/// Puts a model where another one was, as whoever deploys does.
fn put(root: &Path, place: &str, from: &str) {
    let path = root.join(place);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let fresh = path.with_extension("new");
    std::fs::copy(fixture(from), &fresh).unwrap();
    std::fs::rename(&fresh, &path).unwrap();
}

fn shell(line: &str) -> Value {
    let output = Command::new("sh").args(["-c", line]).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {line}\n{told}"))
}

/// Clients that ask until they are told to stop: how many requests were answered well, and what else came.
struct Load {
    is_over: Arc<AtomicBool>,
    good: Arc<AtomicUsize>,
    clients: Vec<std::thread::JoinHandle<Vec<String>>>,
}

impl Load {
    fn on(address: &str, path: &'static str) -> Self {
        let (is_over, good) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let client = || {
            let (is_over, good) = (Arc::clone(&is_over), Arc::clone(&good));
            let (address, body) = (address.to_owned(), pixels());
            std::thread::spawn(move || {
                let mut bad = Vec::new();
                let mut client = Client::to(&address).unwrap();
                while !is_over.load(Ordering::Acquire) {
                    if !client.is_open {
                        client = Client::to(&address).unwrap();
                    }
                    match client.ask("POST", path, "", &body) {
                        Ok((200, _)) => drop(good.fetch_add(1, Ordering::AcqRel)),
                        other => bad.push(format!("{other:?}")),
                    }
                }
                bad
            })
        };
        let clients = (0..4).map(|_| client()).collect();
        Load { is_over, good, clients }
    }

    /// Waits until so many more were answered.
    fn goes_on(&self, more: usize) {
        let (since, before) = (Instant::now(), self.good.load(Ordering::Acquire));
        while self.good.load(Ordering::Acquire) < before + more {
            assert!(since.elapsed() < PATIENCE, "requests are not answered any more");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[track_caller]
    fn ends_without_a_failure(self) {
        self.is_over.store(true, Ordering::Release);
        let bad: Vec<String> =
            self.clients.into_iter().flat_map(|client| client.join().unwrap()).collect();
        assert!(bad.is_empty(), "{} failed: {:?}", bad.len(), bad.first());
    }
}

#[test]
fn the_line_that_is_printed_works() {
    let served = Served::start(&[&digits(), "--name", "my digits"]);
    let answer = shell(&served.example("my digits"));
    assert_eq!(answer["outputs"][0]["shape"], json!([1, 10]), "{answer}");
    assert_eq!(
        (served.said["ready"].clone(), served.said["models"][0]["batching"].clone()),
        (json!(true), json!(true))
    );
    let environment = format!("/proc/{}/environ", served.child.id());
    if cfg!(target_os = "linux") {
        let environment = std::fs::read(environment).unwrap();
        assert!(environment.split(|&byte| byte == 0).any(|one| one == b"ORT_DISABLE_TELEMETRY=1"));
    }
}

#[test]
fn a_server_that_is_to_end_is_not_ready_and_loses_no_request() {
    let served = Served::start(&[&digits(), "--drain-seconds", "1"]);
    assert_eq!(served.ask("/v2/health/ready"), (200, json!({"ready": true})));
    let load = Load::on(&served.address(), "/predict");
    load.goes_on(50);
    served.signal("-TERM");
    let since = Instant::now();
    while served.ask("/v2/health/ready").0 == 200 {
        assert!(since.elapsed() < Duration::from_millis(900), "it stays ready");
    }
    assert_eq!(served.ask("/v2/health/live").0, 200);
    load.goes_on(5);
    load.ends_without_a_failure();
    let (code, told) = served.end();
    assert_eq!((code, told.as_str()), (Some(0), ""));
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let served = Served::start(&[&digits(), "--drain-seconds", "20"]);
    served.signal("-INT");
    while served.ask("/v2/health/ready").0 == 200 {}
    let since = Instant::now();
    served.signal("-INT");
    assert_eq!(served.end().0, Some(130));
    assert!(since.elapsed() < Duration::from_secs(10));
}

#[test]
fn models_are_swapped_under_load_without_a_failure() {
    let root = tempdir();
    put(root.path(), "digits/1/model.onnx", "digits/mlp.onnx");
    let served = Served::start(&[root.path().to_str().unwrap()]);
    let load = Load::on(&served.address(), "/v2/models/digits/predict");
    load.goes_on(20);
    put(root.path(), "digits/2/model.onnx", "digits/cnn.onnx");
    served.signal("-HUP");
    let since = Instant::now();
    while served.ask("/v2/models/digits").1["versions"] != json!(["1", "2"]) {
        assert!(since.elapsed() < PATIENCE, "{:?}", served.ask("/v2/models/digits"));
    }
    load.goes_on(20);
    load.ends_without_a_failure();
}

#[test]
fn files_that_change_are_found_where_that_is_asked_for() {
    let root = tempdir();
    put(root.path(), "a/1/model.onnx", "digits/mlp.onnx");
    let served = Served::start(&[root.path().to_str().unwrap(), "--poll-seconds", "0.1"]);
    put(root.path(), "b/1/model.onnx", "digits/cnn.onnx");
    let since = Instant::now();
    while served.ask("/v2/models/b/ready").0 != 200 {
        assert!(since.elapsed() < PATIENCE);
    }
}

#[test]
fn a_broken_model_is_told_and_stops_no_other() {
    let root = tempdir();
    put(root.path(), "good/1/model.onnx", "digits/mlp.onnx");
    std::fs::create_dir_all(root.path().join("bad/1")).unwrap();
    std::fs::write(root.path().join("bad/1/model.onnx"), "no model").unwrap();
    let served = Served::start(&[root.path().to_str().unwrap(), "--drain-seconds", "0"]);
    assert_eq!(served.said["ready"], json!(false));
    assert!(served.said["not_ready"].as_str().unwrap().contains("model 'bad'"), "{}", served.said);
    assert_eq!(served.ask("/v2/models/good/ready").0, 200);
    assert_eq!(served.ask("/v2/models/bad/ready").0, 503);
    shell(&served.example("good"));
    served.signal("-TERM");
    let (code, told) = served.end();
    assert!(told.starts_with("warning: model 'bad' cannot be served: "), "{told}");
    assert_eq!(code, Some(0));
}

#[test]
fn a_flag_goes_before_a_variable_and_that_before_a_file() {
    let folder = tempdir();
    let file = folder.path().join("serve.toml");
    std::fs::write(&file, "name = 'file'\nmodel-control = true\n").unwrap();
    let start = |variable: Option<&str>, flag: &[&str]| {
        let mut command = Command::new(PROGRAM);
        command.args(["serve", &digits(), "--config", file.to_str().unwrap()]).args(flag);
        command.envs(variable.map(|value| ("MODELOPT_SERVE_NAME", value)));
        let served = Served::by(&mut command);
        served.said["models"][0]["name"].as_str().unwrap().to_owned()
    };
    assert_eq!(start(None, &[]), "file");
    assert_eq!(start(Some("variable"), &[]), "variable");
    assert_eq!(start(Some("variable"), &["--name", "flag"]), "flag");
    std::fs::write(&file, "prot = 80\n").unwrap();
    let output = run(args!["serve", digits(), "--config", file]).expect(1);
    assert!(output.stderr.contains("'prot' is no setting"), "{}", output.stderr);
}

#[test]
fn what_cannot_be_served_is_told_with_what_to_try() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let output = run(args!["serve", digits(), "--port", port]).expect(1);
    assert!(output.stderr.contains("--port 0"), "{}", output.stderr);
    let root = tempdir();
    std::fs::write(root.path().join("notes.txt"), "x").unwrap();
    let output = run(args!["serve", root.path()]).expect(1);
    assert!(output.stderr.contains("it has notes.txt"), "{}", output.stderr);
    let broken = root.path().join("m.onnx");
    std::fs::write(&broken, [0xff; 64]).unwrap();
    let output = run(args!["serve", broken, "--port", "0"]).expect(1);
    assert!(output.stderr.contains("model 'm' cannot be served"), "{}", output.stderr);
    let output = run(args!["serve", digits(), "--jwt-issuer", "x"]).expect(2);
    assert!(output.stderr.contains("--jwt-key"), "{}", output.stderr);
    let output = finish(Command::new(PROGRAM).arg("serve").env("AIP_HTTP_PORT", "x"));
    assert!(output.expect(2).stderr.contains("AIP_HTTP_PORT"));
}

#[test]
fn tokens_are_checked_and_health_is_open() {
    use jsonwebtoken::{Algorithm, EncodingKey, Header, encode, get_current_timestamp};
    let folder = tempdir();
    let key = folder.path().join("secret");
    std::fs::write(&key, SECRET).unwrap();
    let key = key.display().to_string();
    let model = digits();
    let arguments =
        [&*model, "--jwt-algorithm", "HS256", "--jwt-key", &key, "--jwt-audience", "digits"];
    let served = Served::start(&arguments);
    let token = |algorithm, secret: &str, audience: &str, ends: i64| {
        let exp = get_current_timestamp().saturating_add_signed(ends);
        let claims = json!({"sub": "alice", "aud": audience, "exp": exp});
        let key = EncodingKey::from_secret(secret.as_bytes());
        format!(
            "Authorization: Bearer {}\r\n",
            encode(&Header::new(algorithm), &claims, &key).unwrap()
        )
    };
    let other = "another secret that is longer than the hash";
    let none = "Authorization: Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJhIn0.\r\n";
    let rows = [
        (String::new(), 401),
        (none.to_owned(), 401),
        (token(Algorithm::HS256, other, "digits", 600), 401),
        (token(Algorithm::HS512, SECRET, "digits", 600), 401),
        (token(Algorithm::HS256, SECRET, "letters", 600), 401),
        (token(Algorithm::HS256, SECRET, "digits", -600), 401),
        (token(Algorithm::HS256, SECRET, "digits", 600), 200),
    ];
    let mut client = Client::to(&served.address()).unwrap();
    for (header, status) in rows {
        let (answered, body) = client.ask("POST", "/predict", &header, &pixels()).unwrap();
        assert_eq!(answered, status, "{header}: {body}");
        assert_eq!(body["error"].is_string(), status != 200, "{body}");
    }
    assert_eq!(served.ask("/v2/health/ready").0, 200);
    assert_eq!(served.ask("/v2/models").0, 401);
}

#[test]
fn connections_are_encrypted_with_a_certificate() {
    let folder = tempdir();
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"])
        .args(["-keyout", "key.pem", "-out", "cert.pem", "-days", "2", "-subj", "/CN=localhost"])
        .args(["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"])
        .current_dir(folder.path())
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let [certificate, key] =
        ["cert.pem", "key.pem"].map(|name| folder.path().join(name).display().to_string());
    let served = Served::start(&[&digits(), "--tls-certificate", &certificate, "--tls-key", &key]);
    let line = served.example("mlp");
    assert!(line.contains("https://localhost:") && line.contains("--cacert"), "{line}");
    assert_eq!(shell(&line)["outputs"][0]["shape"], json!([1, 10]));
    let output = run(args!["serve", digits(), "--tls-certificate", certificate]).expect(2);
    assert!(output.stderr.contains("--tls-key"), "{}", output.stderr);
}

#[test]
fn vertex_is_obeyed() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut command = Command::new(PROGRAM);
    command.args(["serve", &digits(), "--host", "127.0.0.1"]);
    command.env("AIP_HTTP_PORT", free.to_string()).env("AIP_PREDICT_ROUTE", "/p");
    let served = Served::by(command.env("AIP_HEALTH_ROUTE", "/h"));
    assert_eq!(served.ask("/h").0, 200);
    let body = json!({"instances": [vec![vec![vec![0.5; 8]; 8]; 1]]}).to_string();
    let mut client = Client::to(&served.address()).unwrap();
    let (status, answer) = client.ask("POST", "/p", "", &body).unwrap();
    assert_eq!(
        (status, answer["predictions"].as_array().map(Vec::len)),
        (200, Some(1)),
        "{answer}"
    );
}
