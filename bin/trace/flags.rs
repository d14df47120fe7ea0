//! What may be typed behind `dunlin trace`. The comments are the help text.

use crate::cli::ServerFlags;
use clap::Args;

/// Show what a user's sessions send and get, live.
///
/// Of all devices, on whichever worker, across reloads, until Ctrl-C. Tokens are shown as ***. Costs the
/// server nothing while nobody traces; what is not read fast enough is left out and counted.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  dunlin trace --user ann
  dunlin trace --user ann --json | jq -c 'select(.way == \"in\") | .frame.method'")]
pub(crate) struct Trace {
    /// Whose sessions
    #[arg(long, value_name = "U")]
    pub(crate) user: String,
    /// Print one JSON object a line
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) server: ServerFlags,
}
