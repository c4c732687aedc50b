//! The control API: what a program on this machine may ask of a running node. One HTTP/1.1 API, on a
//! Unix socket in the state directory; the command line, scripts and later the page all use it.
//!
//! | route | body | answer |
//! |---|---|---|
//! | `POST /v1/share` | [`ShareRequest`] | [`Shared`], when the folder is usable |
//! | `POST /v1/join` | [`JoinRequest`] | [`Joined`], when durably admitted |
//! | `POST /v1/invite` | [`InviteRequest`] | [`Invited`] |
//! | `GET /v1/status` | | [`Status`] |
//! | `POST /v1/wait` | [`WaitRequest`] | `{}` when in sync; hanging up cancels |
//! | `POST /v1/verify` | [`VerifyRequest`] | [`Verified`] when all files were read; hanging up cancels |
//! | `POST /v1/history` | [`HistoryRequest`] | [`History`] |
//! | `POST /v1/restore` | [`RestoreRequest`] | [`Restored`], when it is on the disk or cannot be put there |
//! | `POST /v1/versions` | [`RestoreRequest`] without `to` | [`HandedOut`]: what to put outside the folder |
//! | `POST /v1/content` | [`ContentRequest`] | the bytes of a version, to be verified by who asked |
//! | `POST /v1/undo` | [`UndoRequest`] | [`Undone`], likewise |
//! | `POST /v1/resume` | [`ResumeRequest`] | [`Resumed`], when the decision is in the index |
//! | `POST /v1/unite` | [`UniteRequest`] | [`United`], when the folder is open again |
//! | `GET /v1/events` | | [`Event`]s as JSON lines, until the node stops |
//! | `POST /v1/shutdown` | | `{}`, then the node stops |
//!
//! Bodies are JSON of at most [`BODY_BYTES_MAX`]; an empty one counts as `{}`. A request that fails
//! is answered by [`ErrorBody`]: 400 where it was wrong, 422 where it could not be done.

mod api;
mod event;
mod held;
mod history;
mod outside;
mod path;
mod server;

pub use api::{
    Api, ApiError, Device, ErrorBody, ErrorCode, Folder, FolderSpec, InviteRequest, Invited, JoinRequest,
    Joined, Problem, ShareRequest, Shared, State, Status, Tcp, UniteRequest, United, Verified, VerifyRequest,
    WaitRequest,
};
pub use dunlin_core::path::Escaped;
pub use event::{Change, Event};
pub use held::{Deleter, Holding, ResumeRequest, Resumed};
pub use history::{
    Beside, Fate, History, HistoryRequest, Item, RestoreRequest, Restored, Undo, UndoRequest, Undone, Version,
};
pub use outside::{Bytes, ContentRequest, Handed, HandedOut};
pub use path::{AnyPath, for_shell};
pub use server::{BODY_BYTES_MAX, Stopped, serve};
