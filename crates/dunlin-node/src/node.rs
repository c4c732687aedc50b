//! A running node. (Its parts are built beside it; this is the shape that the binary uses.)

use crate::control::{Api, ApiError, Event, FolderSpec, JoinRequest, Joined, Shared, Status};
use crate::home::LockedHome;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::broadcast;

/// What a node is started with.
#[derive(Debug)]
pub struct NodeOptions {
    /// The state directory; held until the node has stopped.
    pub home: LockedHome,
    /// The address to listen on. `None`: any address, UDP port 9000 or another when that is taken.
    /// A port given and taken is an error. A loopback address keeps discovery on loopback too.
    pub listen: Option<SocketAddr>,
    /// Whether to look for devices on the local networks, and to be found there.
    pub discovery: bool,
}

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The state directory.
    #[error(transparent)]
    Home(#[from] crate::home::HomeError),
    /// The address given with `listen` is taken or not of this machine.
    #[error("cannot listen on {addr}: {source}")]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// Anything else; the parts are one line each.
    #[error("{message}")]
    Other {
        /// What happened.
        message: String,
        /// What to do.
        hint: String,
    },
}

/// A running node.
#[derive(Debug)]
pub struct Node {
    events: broadcast::Sender<Event>,
    home: LockedHome,
}

/// Starts a node with every folder it knows.
pub async fn start(options: NodeOptions) -> Result<Arc<Node>, StartError> {
    let (events, _) = broadcast::channel(1024);
    Ok(Arc::new(Node { events, home: options.home }))
}

impl Node {
    /// Ends everything: sockets closed, the store committed. Returns within 1.5 s.
    pub async fn stop(&self) {}
}

fn not_built() -> ApiError {
    ApiError::failed("this part of the node is not built yet", "wait for the next version")
}

impl Api for Node {
    async fn share(&self, _path: PathBuf) -> Result<Shared, ApiError> {
        Err(not_built())
    }

    async fn join(&self, _request: JoinRequest) -> Result<Joined, ApiError> {
        Err(not_built())
    }

    async fn invite(&self, _folder: FolderSpec) -> Result<String, ApiError> {
        Err(not_built())
    }

    async fn status(&self) -> Result<Status, ApiError> {
        let name =
            self.home.name().map_err(|e| ApiError::failed(e.to_string(), "look at the state directory"))?;
        Ok(Status { device: String::new(), name, folders: Vec::new() })
    }

    async fn wait(&self, folder: FolderSpec, _copies: u32) -> Result<(), ApiError> {
        folder.pick([]).map(|_| ())
    }

    fn events(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }
}
