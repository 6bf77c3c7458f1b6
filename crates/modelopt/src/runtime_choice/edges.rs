//! Which runtime comes first, and what names none.

use super::*;

#[test]
fn the_first_runtime_that_is_named_is_what_rules_go_by() {
    let kinds: Vec<RuntimeKind> = RuntimeKind::all().collect();
    for (at, kind) in kinds.iter().enumerate() {
        let mut named = kinds.clone();
        named.swap(0, at);
        assert_eq!(RuntimeChoice::Named(named).target().runtime, Some(kind.name()));
    }
    assert_eq!(RuntimeChoice::Auto.target().runtime, None);
    assert_eq!(RuntimeChoice::Named(Vec::new()).target().runtime, None);
    assert_eq!("auto".parse(), Ok(RuntimeChoice::Auto));
    assert!("".parse::<RuntimeChoice>().is_err());
}

#[test]
fn what_is_asked_for_is_what_is_opened() {
    let kinds: Vec<RuntimeKind> = RuntimeKind::all().collect();
    let explicit = Some("/no such folder/library.so".into());
    let nowhere = LibrarySearch { explicit, ..LibrarySearch::default() };
    let engines = RuntimeChoice::Named(kinds.clone()).engines();
    assert_eq!(engines.iter().filter_map(Engine::kind).collect::<Vec<_>>(), kinds);
    assert!(RuntimeChoice::Auto.engines().is_empty());
    for engine in engines {
        assert_eq!(RuntimeChoice::from(engine.clone()).engines(), std::slice::from_ref(&engine));
        assert_eq!(engine.open(&nowhere, None).is_ok(), engine.is_embedded());
    }
}
