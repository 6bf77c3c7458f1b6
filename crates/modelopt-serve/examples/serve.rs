//! Serves a model, or a folder `NAME/VERSION/model.onnx`, with a router of the library: what it takes to
//! put the parts together.
//!
//! ```sh
//! cargo run --release -p modelopt-serve --example serve -- testdata/digits/mlp.onnx tract 8080
//! ```
//!
//! Says its address as a line of JSON when all models are ready; port 0 is any that is free. With the
//! word `control` at the end clients may load and unload models. The library of a runtime that needs one is
//! where `ORT_DYLIB_PATH` says.

use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use modelopt_serve::Signature;
use modelopt_serve::cache::Cache;
use modelopt_serve::engine::{EngineSettings, Repository, Runtimes, Source};
use modelopt_serve::http::{HttpSettings, Listener, ListenerSettings, router};
use modelopt_serve::security::Guard;
use modelopt_serve::service::{Parts, Service, ServiceSettings};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [models, runtime, port, rest @ ..] = arguments.as_slice() else {
        return Err("what is needed: MODEL RUNTIME PORT [control]".into());
    };
    let describe = |model: &_| Signature::of(model).map_err(|error| error.to_string());
    let library = std::env::var_os("ORT_DYLIB_PATH").map(PathBuf::from);
    let runtimes = Runtimes::open(runtime.parse()?, library.as_deref(), None)?;
    let source = Source::at(Path::new(models));
    let repository = Repository::new(source, runtimes, EngineSettings::default(), describe);
    let settings = ServiceSettings {
        model_control: rest.iter().any(|word| word == "control"),
        ..ServiceSettings::default()
    };
    let service = Service::new(Parts {
        repository: repository.clone(),
        cache: Cache::off(),
        guard: Guard::default(),
        log: None,
        settings,
    });
    let listener = Listener::open(ListenerSettings {
        address: SocketAddr::from((Ipv4Addr::LOCALHOST, port.parse()?)),
        header_time: Duration::from_secs(10),
        tls: None,
    })
    .await?;
    let address = listener.address();
    let serving = tokio::spawn(listener.serve(router(service, &HttpSettings::default())));
    for failed in repository.load_all().await? {
        eprintln!("model '{}' cannot be loaded: {}", failed.name, failed.error);
    }
    println!("{{\"address\":\"{address}\"}}");
    serving.await??;
    Ok(())
}
