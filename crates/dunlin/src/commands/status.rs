//! `dunlin status`.

use crate::cli::Globals;
use crate::failure::Failure;
use crate::{host, render};

/// Shows the folders of the running node: in sync or what is lacking, problems, and the devices.
#[derive(Debug, clap::Args)]
pub struct Status {}

impl Status {
    /// Shows.
    pub async fn run(self, globals: &Globals) -> Result<(), Failure> {
        let status = host::running(globals).await?.status().await?;
        render::status(&status, globals.json);
        Ok(())
    }
}
