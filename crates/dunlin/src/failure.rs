//! Every error of the command as one line of what happened and one of what to do.

use crate::client::ClientError;
use dunlin_node::StartError;
use dunlin_node::control::{ApiError, ErrorCode};
use dunlin_node::home::HomeError;
use std::fmt::Display;
use std::io;

/// Why a command ended without doing what it was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The exit code: 1 it failed, 2 wrong usage.
    pub code: u8,
    /// What happened.
    pub message: String,
    /// What to do.
    pub hint: String,
}

impl Failure {
    /// It could not be done.
    pub fn failed(message: impl Into<String>, hint: impl Into<String>) -> Failure {
        Failure { code: 1, message: message.into(), hint: hint.into() }
    }

    /// It was asked wrongly.
    pub fn usage(message: impl Into<String>, hint: impl Into<String>) -> Failure {
        Failure { code: 2, message: message.into(), hint: hint.into() }
    }

    /// Of what was to be there again so many are held by nobody connected, and so many could not be put in place.
    pub fn unless_all_came(lacking: usize, problems: usize) -> Result<(), Failure> {
        match (lacking, problems) {
            (0, 0) => Ok(()),
            (0, n) => Err(Failure::failed(
                format!("{n} could not be put in place yet"),
                "it is tried again as long as the node runs; dunlin status shows what is in the way",
            )),
            (n, _) => Err(Failure::failed(
                format!("no connected device has {n} of them (any more)"),
                "connect a device that had them then, and try again",
            )),
        }
    }

    /// The system refused something that hardly ever fails.
    pub fn system(doing: impl Display, error: &io::Error) -> Failure {
        Failure::failed(
            format!("cannot {doing}: {error}"),
            "see that the system has memory, file descriptors and space left",
        )
    }
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Failure {
        match error.code {
            ErrorCode::Usage => Failure::usage(error.message, error.hint),
            ErrorCode::Failed => Failure::failed(error.message, error.hint),
        }
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Failure {
        match error {
            ClientError::Api(error) => error.into(),
            ClientError::NotRunning => Failure::failed(
                "no node is running here",
                "start it with dunlin run, or share a folder with dunlin share FOLDER",
            ),
            ClientError::Gone => Failure::failed(
                "the node ended before it answered",
                "start it again with dunlin run; what was asked of it may be done all the same: see dunlin status and dunlin history before you ask again",
            ),
            ClientError::Silent => Failure::failed(
                "the node does not answer",
                "it may be very busy: try again, or stop it with Ctrl-C and start it with dunlin run",
            ),
            ClientError::Strange(what) => Failure::failed(
                format!("the node's answer is not understood: {what}"),
                "it may be of another version: stop it and start it again",
            ),
            ClientError::Io(error) => Failure::failed(
                format!("cannot reach the node: {error}"),
                "see that the state directory is the one the node uses",
            ),
        }
    }
}

impl From<HomeError> for Failure {
    fn from(error: HomeError) -> Failure {
        let hint = match &error {
            HomeError::NoPlace => "give one with --home DIR",
            HomeError::NotADirectory(_) => "give a directory with --home DIR",
            HomeError::Exposed { path, .. } => {
                let fix =
                    format!("close it with chmod 700 {}, or give another with --home DIR", path.display());
                return Failure::failed(error.to_string(), fix);
            }
            HomeError::Foreign { .. } => "run as that user, or give another directory with --home DIR",
            HomeError::Locked { .. } => {
                "dunlin status shows what it does; a second node needs its own --home DIR"
            }
            HomeError::KeyDamaged(_) => {
                "put it back from a backup, or move it away: the device is then a new one and joins again"
            }
            HomeError::BadName(_) => "give another with --name NAME",
            HomeError::Io { .. } => {
                "see that the state directory can be written, or give another with --home DIR"
            }
        };
        Failure::failed(error.to_string(), hint)
    }
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Failure {
        let message = error.to_string();
        match error {
            StartError::Home(error) => error.into(),
            StartError::Listen { .. } => {
                Failure::failed(message, "give another with --listen ADDR:PORT, or none for any that is free")
            }
            StartError::Other { hint, .. } => Failure::failed(message, hint),
        }
    }
}
