//! A search that another thread ends: nothing is emitted, and the best plan so far is at hand.

mod small_model;

use modelopt::prelude::*;

pub(crate) fn main() -> Result<(), Box<dyn std::error::Error>> {
    let optimizer = Optimizer::builder()
        .model(small_model::perceptron(2))
        .samples(SampleSource::arrays(small_model::inputs(3)))
        // More than int8 gives, so that there is something to search for.
        .limits(Limits { min_sqnr_db: Some(60.0), ..Limits::default() })
        .build()?;
    let stop = optimizer.stop();
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        // Such as a button, a signal, or a service that shuts down.
        if told.recv().is_ok() {
            stop.stop();
        }
    });

    let optimized = optimizer.run(&mut |event| {
        if let Progress::Trial(trial) = event {
            println!("tried {}: {:?} dB", trial.what, trial.sqnr_db);
            // Whether the other thread is still there makes no difference here.
            let _ = tell.send(());
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    })?;

    assert!(optimized.artifact().is_err());
    println!("the best plan: {} layers changed", optimized.outcome.plan.changed());
    Ok(())
}
