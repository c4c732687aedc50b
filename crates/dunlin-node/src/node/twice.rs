//! A device that runs twice at once: its state directory was copied, and both copies are at work. Both stop, since
//! each gives numbers that the other gives too, and neither can tell which of them is meant to go on.

use super::Shared;
use crate::control::{ApiError, Event};
use crate::folder::lock;
use crate::session::CODE_STOPPED;
use std::net::SocketAddr;
use std::sync::Arc;

/// What to do about it.
const HINT: &str =
    "keep one: stop the other, remove its state directory and let it join anew; then start this again";

impl Shared {
    /// Another run of this device's program was noticed, here if that is known. From now on nothing is
    /// synced until the program is started again.
    pub(crate) fn runs_twice(&self, elsewhere: Option<SocketAddr>) {
        let place = elsewhere.map(|at| format!(", at {at}")).unwrap_or_default();
        let why = format!(
            "this device runs a second time{place}, with a copy of its state directory, and both have stopped; {HINT}"
        );
        {
            let mut twice = lock(&self.twice);
            if twice.is_some() {
                return;
            }
            *twice = Some(why.clone());
        }
        self.event(Event::Note { text: why });
        for peer in lock(&self.peers).values() {
            peer.conn.close(CODE_STOPPED, b"");
        }
        self.stop_folders.notify_one();
    }

    /// Refuses what a device that runs twice does not do.
    pub(super) fn once(&self) -> Result<(), ApiError> {
        match &*lock(&self.twice) {
            None => Ok(()),
            Some(_) => Err(ApiError::failed(
                "this device runs a second time elsewhere, with a copy of its state directory",
                HINT,
            )),
        }
    }
}

/// Tells when discovery hears this device's own key from elsewhere.
pub(super) async fn watch(
    shared: Arc<Shared>,
    mut doubles: tokio::sync::watch::Receiver<Option<SocketAddr>>,
) {
    while doubles.changed().await.is_ok() {
        let at = *doubles.borrow_and_update();
        shared.runs_twice(at);
    }
}
