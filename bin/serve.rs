//! `dunlin serve`.

use crate::cli::Serve;
use crate::failure::Failure;
use crate::log;
use crate::settings_file::Sources;
use dunlin_im::ImApp;
use dunlin_server::Server;
use dunlin_server::config::Config;
use dunlin_server::exit::ExitCode;
use dunlin_server::logging;
use dunlin_server::privileges::Privileges;

/// Runs the server until it stops. Forked processes end inside, too: each leaves in its own way.
pub(crate) fn run(flags: &Serve) -> Result<ExitCode, Failure> {
    let mut sources = Sources::new(&flags.settings)?;
    if flags.daemonize {
        sources = sources.daemonize();
    }
    let config = Config::from_settings(sources.settings()?)?;
    let privileges = Privileges::enter(&config)?;
    if let Some(user) = privileges.user() {
        // At the next reload it is this user who reads it.
        sources.settings().map_err(|failure| {
            Failure::bad_usage(format!("{failure}; server.user {user:?} has to read it, too"))
        })?;
    }
    let app =
        ImApp::new(&config.settings).map_err(|error| Failure::bad_usage(error.to_string()))?;
    logging::set_role("master");
    logging::apply(&config.log)?;
    log::install();
    let reread = move || sources.settings().map_err(|failure| failure.to_string());
    Ok(Server::new(app, config).config_source(Box::new(reread)).run())
}
