//! All tests of the node over sockets, as one program: it is built and linked once.

#![allow(clippy::unwrap_used, reason = "tests")]

mod net_beacon;
mod net_lane;
mod net_namespaces;
mod net_transport;
mod node_blocks;
mod node_discovery;
mod node_hostile;
mod node_lane;
mod node_lists;
mod rogues;
