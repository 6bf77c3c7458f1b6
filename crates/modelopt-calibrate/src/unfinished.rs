//! A calibration that was interrupted, as a file.

use serde::{Deserialize, Serialize};

use crate::calibration::{Calibration, ReadError};
use crate::pass::Position;

/// The version of the file that is written.
const VERSION: u32 = 1;

/// What was observed until a pass was interrupted, and where it was.
#[derive(Clone, Debug)]
pub struct Unfinished {
    /// What was observed. It is of all samples of the pass, though not all of them were seen.
    pub calibration: Calibration,
    /// Where the pass was.
    pub position: Position,
}

/// Why a file of an unfinished calibration cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UnfinishedError {
    /// It is no TOML, or not what such a file has.
    #[error("it is no unfinished calibration: {0}")]
    Form(Box<toml::de::Error>),
    /// It is of another version.
    #[error("it has version {0}; this program goes on from version {VERSION}")]
    Version(u32),
    /// What was observed cannot be read.
    #[error(transparent)]
    Calibration(#[from] ReadError),
    /// Where the pass was does not go with what was observed.
    #[error("what it says contradicts itself")]
    Unsound,
}

impl From<toml::de::Error> for UnfinishedError {
    fn from(error: toml::de::Error) -> Self {
        UnfinishedError::Form(Box::new(error))
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    unfinished: u32,
    position: Position,
    /// A file in the file, so that it is not taken for one that is finished.
    calibration: String,
}

/// What every version has.
#[derive(Deserialize)]
struct Header {
    unfinished: u32,
}

impl Unfinished {
    /// The file.
    pub fn to_toml(&self) -> Result<String, toml::ser::Error> {
        toml::to_string(&Document {
            unfinished: VERSION,
            position: self.position.clone(),
            calibration: self.calibration.to_toml()?,
        })
    }

    /// Reads a file with the observers of this crate.
    pub fn from_toml(text: &str) -> Result<Self, UnfinishedError> {
        let Header { unfinished } = toml::from_str(text)?;
        if unfinished != VERSION {
            return Err(UnfinishedError::Version(unfinished));
        }
        let document: Document = toml::from_str(text)?;
        let calibration = Calibration::from_toml(&document.calibration)?;
        if !calibration.observations().are_of(document.position.names()) {
            return Err(UnfinishedError::Unsound);
        }
        Ok(Unfinished { calibration, position: document.position })
    }
}

#[cfg(test)]
mod tests {
    use modelopt_graph::Model;
    use modelopt_runtime::{RuntimeError, Sample, Session};

    use super::*;
    use crate::activations::Activations;
    use crate::observations::Observations;
    use crate::pass::Pass;
    use crate::testing;

    fn unfinished() -> Unfinished {
        let mut model = testing::model();
        modelopt_graph::infer::infer(&mut model);
        let mut observations = Observations::default();
        Activations::of(&model).watch(&model, &mut observations);
        let none: Vec<Sample> = Vec::new();
        let refuse =
            |_: &Model| -> Result<Box<dyn Session>, RuntimeError> { Err(RuntimeError::NoLibrary) };
        let position = Pass::new(&model, &none).start(&observations, &refuse).unwrap();
        Unfinished { calibration: Calibration::new("abc", [0, 1], observations), position }
    }

    #[test]
    fn a_file_comes_back_as_it_was_and_is_no_calibration() {
        let known = unfinished();
        let text = known.to_toml().unwrap();
        let read = Unfinished::from_toml(&text).unwrap();
        assert_eq!(read.position, known.position);
        assert_eq!(read.to_toml().unwrap(), text);
        assert!(Calibration::from_toml(&text).is_err());
    }

    #[test]
    fn damaged_files_are_refused_with_the_reason() {
        let text = unfinished().to_toml().unwrap();
        let damaged = |from: &str, to: &str| {
            assert!(text.contains(from), "{from} in {text}");
            Unfinished::from_toml(&text.replacen(from, to, 1)).unwrap_err()
        };
        let version = damaged("unfinished = 1", "unfinished = 9");
        assert!(matches!(version, UnfinishedError::Version(9)));
        assert!(matches!(damaged("\"y\"", "\"w\""), UnfinishedError::Unsound));
        assert!(matches!(damaged("histogram:all", "histo:all"), UnfinishedError::Calibration(_)));
        assert!(matches!(damaged("round = 0", "round = -1"), UnfinishedError::Form(_)));
        assert!(matches!(Unfinished::from_toml(""), Err(UnfinishedError::Form(_))));
    }
}
