//! What may be typed behind `dunlin chat`. The comments are the help text.

use crate::cli::ServerFlags;
use clap::Args;
use std::path::PathBuf;

/// Chat in the terminal.
///
/// Without a terminal it is a line client: each line of standard input is a message to --to, or else to
/// the first --room; each message that comes is a line of standard output. It ends when its input has
/// ended and all is sent; without --to and --room it only listens, until it is ended.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  dunlin chat --user ann
  dunlin chat wss://chat.example/ws --token-file token --room tea
  echo 'tea is ready' | dunlin chat --user kettle --to ann
  dunlin chat --user ann --json | jq -r .body.text")]
pub(crate) struct Chat {
    /// Where the server is, such as wss://chat.example/ws [default: the server of the run directory,
    /// else ws://127.0.0.1:9502/ws]
    #[arg(value_name = "URL")]
    pub(crate) url: Option<String>,
    /// Who to be, where the server is in the open mode; with a token, who it must be of
    #[arg(long, value_name = "U", required_unless_present_any = ["token", "token_file"])]
    pub(crate) user: Option<String>,
    /// The login token. Others on this machine can see it: --token-file is better
    #[arg(long, value_name = "T", conflicts_with = "token_file")]
    pub(crate) token: Option<String>,
    /// A file with the login token, read again for each login and before the token ends
    #[arg(long, value_name = "F")]
    pub(crate) token_file: Option<PathBuf>,
    /// The name of this device [default: a new one each time]
    #[arg(long, value_name = "D")]
    pub(crate) device: Option<String>,
    /// Join this room; may be given again
    #[arg(long, value_name = "R", value_delimiter = ',')]
    pub(crate) room: Vec<String>,
    /// Talk to this person
    #[arg(long, value_name = "U")]
    pub(crate) to: Option<String>,
    /// As a line client: print each message as the JSON that came
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) server: ServerFlags,
}
