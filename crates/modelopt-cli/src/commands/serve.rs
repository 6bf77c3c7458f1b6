//! `modelopt serve`.

mod signals;
mod telling;

use anyhow::{Context, Result};
use modelopt::runtime::LibrarySearch;
use modelopt_serve::engine::{Runtimes, usable_processors};
use modelopt_serve::server::{Event, Server};

use crate::args::{self, Common};
use crate::ending::Done;
use crate::saying::print;
use crate::settings::serve::{Platform, Serving, open_log, serving};
use crate::settings::{environment, workers};
use crate::show;
use crate::show::serving::{Reached, Told};

/// Threads that take requests in and write answers. Models are computed on threads of their own.
const MOST_THREADS: usize = 2;

/// Serves until it is told to stop.
pub(super) fn run(args: &args::Serve, common: &Common) -> Result<Done> {
    telling::listen();
    let variable = std::env::var_os("MODELOPT_SERVE_CONFIG").map(Into::into);
    let file = common.config.clone().or(variable);
    let names_model = args.server.model.is_some();
    let platform = Platform::here(names_model)?;
    let serving = serving(args, file.as_deref(), &platform)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(usable_processors().clamp(1, MOST_THREADS))
        .enable_all()
        .build()
        .context("cannot start threads")?;
    let done = runtime.block_on(serve(serving, common));
    // A load that goes on would hold up the end.
    runtime.shutdown_background();
    done
}

async fn serve(serving: Serving, common: &Common) -> Result<Done> {
    let orders = signals::orders()?;
    let runtimes = runtimes(&serving)?;
    let log = serving.log.as_ref();
    let log = log.map(|(path, settings)| open_log(path, *settings)).transpose()?;
    let reached = Reached::by(&serving.server);
    let server = Server::open(serving.server, runtimes, log).await;
    let server = server.map_err(|error| show::serving::refused(&error))?;
    let reached = reached.at(server.address(), server.metrics_address());
    let mut told = Told::new(reached, serving.runtime, server.service().clone());
    if !common.quiet && !common.json {
        say(&told.listening());
    }
    let mut tell = |event: Event| {
        let is_start = matches!(event, Event::Started { .. });
        let (warning, text) = told.event(event);
        if let Some(warning) = warning {
            say(&format!("warning: {warning}\n"));
        }
        if common.json && is_start {
            // Whoever started it and does not read may be gone.
            let _ = print(&told.document());
        } else if !common.quiet && !common.json {
            say(&text);
        }
    };
    let ended = server.run(orders, &mut tell).await?;
    if !ended.all_answered {
        say("warning: not all requests were answered before the time was over\n");
    }
    Ok(Done::Ok)
}

/// What runs the models: what comes as a library is loaded here too, unless models are isolated.
fn runtimes(serving: &Serving) -> Result<Runtimes> {
    let kind = serving.runtime;
    let search = LibrarySearch { explicit: serving.library.clone(), ..environment() };
    let library = kind.find_library(&search).map_err(|error| show::serving::no_library(&error))?;
    let engine = &serving.server.engine;
    let mut all = std::iter::once(&engine.default).chain(engine.models.values());
    let workers = workers().filter(|_| all.clone().any(|model| model.isolate));
    let opened = match workers {
        Some(workers) if all.all(|model| model.isolate) => {
            Runtimes::open_isolated(kind, library.as_deref(), &workers)
        }
        workers => Runtimes::open(kind, library.as_deref(), workers.as_ref()),
    };
    opened.context("the runtime cannot be had")
}

fn say(text: &str) {
    eprint!("{}", show::plain(text));
}
