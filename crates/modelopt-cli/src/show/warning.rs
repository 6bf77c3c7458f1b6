//! What to know of a run, in flags.

use modelopt::{FoundInputs, Hint, Warning};

/// A warning in words, with what to do about it.
pub(crate) fn warning(warning: &Warning) -> String {
    match warning {
        Warning::InventedInputs | Warning::InventedRanges => {
            format!("{warning}; give some with --samples")
        }
        Warning::RangesNeedSamples => {
            format!(
                "{warning}; give some with --samples, or what `modelopt calibrate` saw with --calibration"
            )
        }
        Warning::FoundInputs(found) => format!(
            "inputs as they are guessed first do not suit the model; found for it: {}",
            options(found)
        ),
        Warning::SlowOnProcessors { stored: Some(stored), .. } => {
            format!("{warning}; --to {stored} halves the file at no cost")
        }
        Warning::SlowerIn16Bits { stored, allowance, .. } => {
            let as_by = stored.map(|stored| format!(", as by --to {stored}")).unwrap_or_default();
            format!(
                "{warning}{as_by}; --max-slowdown {allowance:.2} would let it pass as it was asked for"
            )
        }
        Warning::Unproven { hint: Some(Hint::RealInputs), .. } => {
            format!("{warning}; give real ones with --samples")
        }
        Warning::FewerTrials { .. } => format!("{warning}: --time-budget SECONDS allows more"),
        other => other.to_string(),
    }
}

/// Found inputs as they are given.
fn options(found: &FoundInputs) -> String {
    let dims = found.dims.iter().map(|(name, size)| option("--dim", &format!("{name}={size}")));
    let inputs =
        found.inputs.iter().map(|(name, value)| option("--input", &format!("{name}={value}")));
    dims.chain(inputs).collect::<Vec<_>>().join(" ")
}

/// An option as a shell takes it.
fn option(name: &str, value: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-.=,/:+".contains(c);
    if value.chars().all(plain) {
        format!("{name} {value}")
    } else {
        format!("{name} '{}'", value.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use modelopt::rewrite::{Precision, Scheme};

    use super::*;

    #[test]
    fn what_can_be_done_is_told_in_flags() {
        let to = Precision::Bf16;
        let stored = Some(Scheme::BF16_WEIGHTS);
        let slow = Warning::SlowOnProcessors { precision: to, stored };
        assert_eq!(
            warning(&slow),
            "bfloat16 is not computed faster on CPUs, where runtimes cast or emulate it; \
             --to bf16-weights halves the file at no cost"
        );
        let slower = |stored| {
            let (ratio, allowance) = (1.234, 1.284);
            warning(&Warning::SlowerIn16Bits { precision: to, ratio, allowance, stored })
        };
        assert_eq!(
            slower(stored),
            "computed in bfloat16 it takes 1.23x of the time here, so weights are only stored in \
             it, as by --to bf16-weights; --max-slowdown 1.28 would let it pass as it was asked for"
        );
        assert_eq!(
            slower(None),
            "computed in bfloat16 it takes 1.23x of the time here, and it has no weights to store \
             in fewer bits; it is emitted as it is; --max-slowdown 1.28 would let it pass as it was \
             asked for"
        );
        let unproven = |hint| warning(&Warning::Unproven { reason: "no inputs".to_owned(), hint });
        assert_eq!(unproven(None), "emitted without proof: no inputs");
        assert_eq!(
            unproven(Some(Hint::RealInputs)),
            "emitted without proof: no inputs; give real ones with --samples"
        );
        let fewer = Warning::FewerTrials { allowed: 6, wanted: 25, run_seconds: 10.04 };
        assert_eq!(
            warning(&fewer),
            "only 6 of 25 trials were made, because one run takes 10.0 s: --time-budget SECONDS \
             allows more"
        );
    }

    #[test]
    fn found_inputs_are_options_that_a_shell_takes() {
        let found = FoundInputs {
            dims: [("batch size".to_owned(), 2), ("n".to_owned(), 4)].into(),
            inputs: [("it's".to_owned(), "0.5,1".to_owned())].into(),
            tries: 3,
        };
        let said = warning(&Warning::FoundInputs(found.clone()));
        let said = said.rsplit_once("found for it: ").map(|(_, options)| options);
        assert_eq!(said, Some(r"--dim 'batch size=2' --dim n=4 --input 'it'\''s=0.5,1'"));
        assert!(!Warning::FoundInputs(found).to_string().contains("--"));
    }

    #[test]
    fn what_has_no_flag_is_said_as_the_library_says_it() {
        let nothing = Warning::NothingToDo { layers: 2, narrow_already: false };
        assert_eq!(warning(&nothing), nothing.to_string());
    }
}
