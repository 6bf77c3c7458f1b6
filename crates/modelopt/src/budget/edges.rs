//! Budgets that are no numbers, over before they begin, or larger than any time.

use super::*;

fn of(seconds: f64) -> Budget {
    Budget::new(Instant::now(), Some(seconds), Stop::default())
}

#[test]
fn no_time_allows_nothing_and_no_number_is_no_limit() {
    assert!(!of(0.0).allows(Duration::ZERO));
    for odd in [f64::NAN, f64::INFINITY, -1.0, 1e300] {
        assert!(of(odd).left().is_none(), "{odd}");
        assert!(of(odd).allows(Duration::from_secs(1 << 40)), "{odd}");
    }
}

#[test]
fn more_than_there_is_cannot_be_held_back() {
    let held = of(10.0).holding_back(Duration::from_secs(20));
    assert_eq!(held.left(), Some(Duration::ZERO));
    assert!(!held.allows(Duration::ZERO));
    let held = of(10.0).holding_back(Duration::MAX);
    assert!(!held.allows(Duration::from_millis(1)));
    // Where there is no limit nothing is held back.
    let endless = Budget::new(Instant::now(), None, Stop::default());
    assert!(endless.holding_back(Duration::MAX).left().is_none());
}

#[test]
fn a_stop_reaches_all_that_came_of_the_budget() {
    let budget = of(60.0);
    let (held, stop) = (budget.holding_back(Duration::from_secs(1)), budget.stop());
    assert!(!held.is_stopped() && !stop.is_stopped());
    stop.clone().stop();
    assert!(held.is_stopped() && budget.is_stopped() && stop.is_stopped());
    assert!(!budget.allows(Duration::ZERO) && budget.left().is_some());
}
