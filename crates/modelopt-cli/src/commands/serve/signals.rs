//! What signals ask of a server.

use anyhow::{Context, Result};
use modelopt_serve::server::Order;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::ending::STOPPED;

/// Orders by SIGTERM and Ctrl-C, which end it, and SIGHUP, which has it read everything again. Who sends a
/// second signal to end it does not want to wait.
pub(super) fn orders() -> Result<UnboundedReceiver<Order>> {
    let (sender, receiver) = unbounded_channel();
    listen(sender).context("cannot listen for signals")?;
    Ok(receiver)
}

#[cfg(unix)]
fn listen(sender: UnboundedSender<Order>) -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        let mut is_ending = false;
        loop {
            tokio::select! {
                _ = terminate.recv() => stop(&sender, &mut is_ending),
                _ = interrupt.recv() => stop(&sender, &mut is_ending),
                _ = hang_up.recv() => drop(sender.send(Order::Reload)),
            }
        }
    });
    Ok(())
}

#[cfg(not(unix))]
fn listen(sender: UnboundedSender<Order>) -> std::io::Result<()> {
    tokio::spawn(async move {
        let mut is_ending = false;
        while tokio::signal::ctrl_c().await.is_ok() {
            stop(&sender, &mut is_ending);
        }
    });
    Ok(())
}

fn stop(sender: &UnboundedSender<Order>, is_ending: &mut bool) {
    if *is_ending {
        std::process::exit(i32::from(STOPPED));
    }
    *is_ending = true;
    // A server that does not listen any more is ending.
    let _ = sender.send(Order::Stop);
}
