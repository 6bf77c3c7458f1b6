//! A server with two good versions of a model and one that cannot be loaded.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use modelopt_serve::Signature;
use modelopt_serve::cache::Cache;
use modelopt_serve::engine::{EngineSettings, Repository, Runtimes, Source};
use modelopt_serve::http::{HttpSettings, Listener, ListenerSettings, router};
use modelopt_serve::security::Guard;
use modelopt_serve::service::{Parts, Service, ServiceSettings};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use xtask::testdata::fixture;

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    repository: Arc<Repository>,
    runtime: Runtime,
    _models: TempDir,
}

impl Server {
    pub(crate) fn start() -> Self {
        let models = tempfile::tempdir().unwrap();
        for (version, file) in [("1", "mlp.onnx"), ("2", "cnn.onnx"), ("3", "README.md")] {
            let folder = models.path().join("digits").join(version);
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::copy(fixture("digits").join(file), folder.join("model.onnx")).unwrap();
        }
        let runtime = Runtime::new().unwrap();
        let runtimes = Runtimes::open("tract".parse().unwrap(), None, None).unwrap();
        let describe = |model: &_| Signature::of(model).map_err(|error| error.to_string());
        let source = Source::at(models.path());
        let repository = Repository::new(source, runtimes, EngineSettings::default(), describe);
        let service = Service::new(Parts {
            repository: Arc::clone(&repository),
            cache: Cache::off(),
            guard: Guard::default(),
            log: None,
            settings: ServiceSettings::default(),
        });
        let settings = ListenerSettings {
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            header_time: Duration::from_secs(10),
            tls: None,
        };
        let listener = runtime.block_on(Listener::open(settings)).unwrap();
        let address = listener.address();
        runtime.spawn(listener.serve(router(service, &HttpSettings::default())));
        assert_eq!(runtime.block_on(repository.load_all()).unwrap().len(), 1);
        Server { address, repository, runtime, _models: models }
    }

    pub(crate) fn unload(&self) {
        self.runtime.block_on(self.repository.unload("digits")).unwrap();
    }
}
