//! What is told of a session's frames to who traces its user, and by which number he is traced.
//!
//! Invariant: no token is told, wherever in a frame it stands; a text that is no JSON, in which nobody can
//! tell, is told by its length alone.

use crate::app::ImApp;
use crate::ids::UserId;
use dunlin_server::{Closed, ConnId, Context, MasterContext, TraceWay};
use serde_json::{Value as Json, json};

/// What stands in the place of a token.
const HIDDEN: &str = "***";

impl ImApp {
    /// The number by which a user's sessions are traced; a name that is none is nobody's.
    pub(crate) fn subject_named(&self, name: &str) -> Option<u64> {
        UserId::new(name).ok().map(|user| self.tables().subject(user.as_str()))
    }

    /// The sessions of a user that there are, for who begins to trace him.
    pub(crate) fn traced_sessions(&self, master: &MasterContext<'_>, user: &str) -> Json {
        let live = self.tables().live_sessions(master.sessions, user);
        let named = live
            .iter()
            .map(|one| json!({"session": one.conn.to_string(), "device": one.account.device}));
        named.collect()
    }

    /// Tells who traces the session's user what it sent. False: nobody does.
    pub(crate) fn trace_sent(
        &self,
        context: &mut Context<'_, Self>,
        conn: ConnId,
        text: &str,
    ) -> bool {
        let traced = context.is_traced(conn);
        if traced {
            context.trace(conn, TraceWay::In, &without_tokens(text));
        }
        traced
    }

    /// The same of its end.
    pub(crate) fn trace_closed(
        &self,
        context: &mut Context<'_, Self>,
        conn: ConnId,
        closed: &Closed,
    ) {
        if context.is_traced(conn) {
            let text = json!({"code": closed.code, "reason": closed.reason});
            context.trace(conn, TraceWay::Closed, &text.to_string());
        }
    }
}

/// A frame as it was sent, but for its tokens.
fn without_tokens(text: &str) -> String {
    match serde_json::from_str::<Json>(text) {
        Ok(mut frame) => {
            // What a message says is not a token of ours.
            let body = body_of(&mut frame).map(Json::take);
            hide(&mut frame);
            if let (Some(place), Some(body)) = (body_of(&mut frame), body) {
                *place = body;
            }
            frame.to_string()
        }
        Err(_) => format!("{} bytes that are no JSON", text.len()),
    }
}

fn body_of(frame: &mut Json) -> Option<&mut Json> {
    frame.get_mut("params")?.get_mut("body")
}

fn hide(value: &mut Json) {
    match value {
        Json::Object(members) => members.iter_mut().for_each(|(name, member)| {
            if name == "token" {
                *member = HIDDEN.into();
            } else {
                hide(member);
            }
        }),
        Json::Array(all) => all.iter_mut().for_each(hide),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_hidden_wherever_they_stand() {
        for (text, shown) in [
            (
                r#"{"id":1,"method":"login","params":{"token":"SECRET","device":{"id":"d"}}}"#,
                r#"{"id":1,"method":"login","params":{"token":"***","device":{"id":"d"}}}"#,
            ),
            (r#"{"token":"SECRET","token":"SECRET"}"#, r#"{"token":"***"}"#),
            (r#"{"params":{"\u0074oken":{"a":"SECRET"}}}"#, r#"{"params":{"token":"***"}}"#),
            (r#"[{"device":[{"token":"SECRET"}]}]"#, r#"[{"device":[{"token":"***"}]}]"#),
            (r#"{"params":{"body":{"token":"kiss"}}}"#, r#"{"params":{"body":{"token":"kiss"}}}"#),
            (r#"{"params":["token","x"]}"#, r#"{"params":["token","x"]}"#),
            (r#""text""#, r#""text""#),
            ("{\"token\":\"SECRET\"", "17 bytes that are no JSON"),
        ] {
            assert_eq!(without_tokens(text), shown);
        }
    }
}
