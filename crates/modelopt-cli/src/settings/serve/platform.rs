//! What platforms have put in place: Vertex AI's variables, and the folders of models of SageMaker and KServe.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::Result;
use modelopt_serve::http::VertexRoutes;

use crate::ending::Usage;

/// Where SageMaker and KServe put models.
const FOLDERS: [&str; 2] = ["/opt/ml/model", "/mnt/models"];

/// What is said by where the program runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Platform {
    /// Where models are.
    pub(crate) models: Option<PathBuf>,
    /// The port that is asked.
    pub(crate) port: Option<u16>,
    /// Vertex AI's routes.
    pub(crate) vertex: Option<VertexRoutes>,
    /// Whether requests come from other machines.
    pub(crate) is_any: bool,
}

impl Platform {
    /// The one around this process. Its folders count only where no model is named.
    pub(crate) fn here(names_model: bool) -> Result<Self> {
        Platform::of(&|name| std::env::var_os(name), &FOLDERS.map(Path::new), names_model)
    }

    fn of(
        variable: &dyn Fn(&str) -> Option<OsString>,
        folders: &[&Path],
        names_model: bool,
    ) -> Result<Self> {
        let text = |name: &str| variable(name)?.into_string().ok().filter(|text| !text.is_empty());
        let port = match text("AIP_HTTP_PORT") {
            None => None,
            Some(port) => Some(
                port.parse()
                    .map_err(|_| Usage(format!("AIP_HTTP_PORT is '{port}', and no port")))?,
            ),
        };
        let vertex = match (text("AIP_HEALTH_ROUTE"), text("AIP_PREDICT_ROUTE")) {
            (None, None) => None,
            (health, predict) => Some(routes(health, predict)?),
        };
        let uri = text("AIP_STORAGE_URI");
        let uri = uri.map(|uri| PathBuf::from(uri.strip_prefix("file://").unwrap_or(&uri)));
        let candidates = uri.into_iter().chain(folders.iter().map(|folder| (*folder).to_owned()));
        let models = candidates.into_iter().find(|folder| !names_model && folder.is_dir());
        let is_any = port.is_some() || vertex.is_some() || models.is_some();
        Ok(Platform { models, port, vertex, is_any })
    }
}

/// Vertex AI's routes, where one of them may be missing.
fn routes(health: Option<String>, predict: Option<String>) -> Result<VertexRoutes> {
    let health = health.unwrap_or_else(|| "/health".to_owned());
    let predict = predict.unwrap_or_else(|| "/vertex/predict".to_owned());
    for (name, route) in [("AIP_HEALTH_ROUTE", &health), ("AIP_PREDICT_ROUTE", &predict)] {
        if !route.starts_with('/') || route.contains(['{', '}', '*', '?', '#']) {
            return Err(Usage(format!("{name} is '{route}', and no path")).into());
        }
    }
    Ok(VertexRoutes { health, predict })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform(variables: &[(&str, &str)], folders: &[&Path]) -> Result<Platform> {
        let variable = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name)?;
            Some(OsString::from(found.1))
        };
        Platform::of(&variable, folders, false)
    }

    #[test]
    fn nothing_is_assumed_where_nothing_is_said() {
        assert_eq!(platform(&[], &[Path::new("/nowhere")]).unwrap(), Platform::default());
    }

    #[test]
    fn vertex_says_port_and_routes() {
        let said =
            [("AIP_HTTP_PORT", "9123"), ("AIP_HEALTH_ROUTE", "/h"), ("AIP_PREDICT_ROUTE", "/p")];
        let found = platform(&said, &[]).unwrap();
        assert_eq!((found.port, found.is_any), (Some(9123), true));
        let routes = VertexRoutes { health: "/h".to_owned(), predict: "/p".to_owned() };
        assert_eq!(found.vertex, Some(routes));
        assert!(platform(&[("AIP_HTTP_PORT", "x")], &[]).is_err());
        assert!(platform(&[("AIP_PREDICT_ROUTE", "p")], &[]).is_err());
        assert!(platform(&[("AIP_PREDICT_ROUTE", "/{a")], &[]).is_err());
    }

    #[test]
    fn folders_are_taken_in_order_if_they_are_there() {
        let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let folders = [Path::new("/nowhere"), first.path(), second.path()];
        let found = platform(&[], &folders).unwrap();
        assert_eq!((found.models.as_deref(), found.is_any), (Some(first.path()), true));
        let uri = format!("file://{}", second.path().display());
        let found = platform(&[("AIP_STORAGE_URI", &uri)], &folders).unwrap();
        assert_eq!(found.models.as_deref(), Some(second.path()));
        let found = platform(&[("AIP_STORAGE_URI", "gs://bucket/m")], &folders).unwrap();
        assert_eq!(found.models.as_deref(), Some(first.path()));
        let named = Platform::of(&|_| None, &folders, true).unwrap();
        assert_eq!(named, Platform::default());
    }
}
