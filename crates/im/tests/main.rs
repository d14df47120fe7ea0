//! The IM through its hooks, without a process: every method and every deadline, by table.

mod api;
mod backend;
mod deadlines;
mod devices;
mod expiry;
mod extension;
mod hooks;
mod limits;
mod messages;
mod methods;
mod once;
mod presence;
mod presence_model;
mod properties;
mod room_messages;
mod room_news;
mod room_properties;
mod room_tokens;
mod rooms;
mod support;
mod token_properties;
mod tokens;
