//! A database that meets damage of some kinds in its file panics: here that becomes an error, as all other damage is.

use dunlin_core::kv::{Fault, Read};
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

thread_local! {
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Does something with the database. After a panic nothing of it may be used but to close it.
pub(super) fn guarded<T>(work: impl FnOnce() -> Read<T>) -> Read<T> {
    quieten();
    let before = GUARDED.replace(true);
    let done = catch_unwind(AssertUnwindSafe(work));
    GUARDED.set(before);
    done.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().map(ToString::to_string);
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
        Err(Fault::damage(text.unwrap_or_else(|| "the database stopped".into())))
    })
}

/// What is an error is not told as a panic too.
fn quieten() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = take_hook();
        set_hook(Box::new(move |panic| {
            if !GUARDED.get() {
                before(panic);
            }
        }));
    });
}
