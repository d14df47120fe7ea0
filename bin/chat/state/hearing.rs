//! What the server says, and what is made of it.

use super::{Asked, Ending, Json, Millis, News, PING_MAX_MS, PING_MIN_MS, Phase, Policy, State};
use serde_json::json;

impl State {
    pub(super) fn told(&mut self, now: Millis, method: &str, params: &Json) {
        let text = |name: &str| params[name].as_str().map(str::to_owned);
        let count = params["count"].as_u64().unwrap_or(0);
        match method {
            "hello" => self.greeted(params),
            "bye" => {
                self.bye = Some(params.clone());
                if self.phase == Phase::Online {
                    self.phase = Phase::Leaving;
                }
            }
            "message" if params["id"].as_str().is_some_and(|id| self.seen.is_new(id)) => {
                self.tell(News::message(params, self.me.as_deref()));
            }
            "signal" => {
                if let Some(news) = News::signal(params, self.me.as_deref(), now) {
                    self.tell(news);
                }
            }
            "presence" => {
                if let Some(user) = text("user") {
                    self.learn(&user, params);
                }
            }
            "joined" | "left" => {
                if let (Some(room), Some(user)) = (text("room"), text("user")) {
                    let came = method == "joined";
                    self.tell(News::Moved { room, user, came, count });
                }
            }
            "room" => {
                if let Some(room) = text("room") {
                    self.tell(News::Count { room, count });
                }
            }
            _ => {} // Of a later version.
        }
    }

    fn greeted(&mut self, hello: &Json) {
        self.policy = Policy::from_hello(&hello["reconnect"]);
        let most = hello["max_message"].as_u64().and_then(|most| usize::try_from(most).ok());
        self.max_message = most.unwrap_or(usize::MAX);
        let device = self.identity.device.clone();
        let params = match &self.identity.token {
            Some(token) => json!({"token": token, "device": device}),
            None => json!({"user": self.identity.user, "device": device}),
        };
        self.ask(Asked::Login, "login", &params);
    }

    pub(super) fn answered(&mut self, now: Millis, said: &Json) {
        let Some(id) = said["id"].as_u64() else { return };
        let Some(asked) = self.calls.take(id) else { return };
        let error = &said["error"];
        if error.is_null() {
            self.done(now, id, asked, &said["result"]);
        } else {
            self.refused(now, id, asked, error);
        }
        self.pump(now);
    }

    fn done(&mut self, now: Millis, id: u64, asked: Asked, result: &Json) {
        match asked {
            Asked::Login => self.arrived(now, result),
            Asked::Send => {
                if let Some(message) = self.outgoing.take(id) {
                    let number = |name: &str| result[name].as_u64().unwrap_or(0);
                    let (time, sessions) = (number("time"), number("sessions"));
                    self.tell(News::Sent { message, time, sessions });
                    self.end_if_finished();
                }
            }
            Asked::Join { room } => {
                let count = result["count"].as_u64().unwrap_or(0);
                self.tell(News::Joined { room: room.clone(), count });
                self.ask_online(Asked::Members { room, told: false }, "members");
            }
            Asked::Members { room, told } => {
                let names = result["members"].as_array().into_iter().flatten();
                let members = names.filter_map(Json::as_str).map(str::to_owned).collect();
                let more = !result["cursor"].is_null();
                self.tell(News::Members { room, members, more, told });
            }
            Asked::Presence { users } => {
                self.learn_all(&result["users"]);
                let states = result["users"].as_object().cloned().unwrap_or_default();
                let online =
                    |user: &String| states.get(user).is_some_and(|one| one["online"] == true);
                let states = users.iter().map(|user| (user.clone(), online(user))).collect();
                self.tell(News::Who { states });
            }
            Asked::Watch { .. } => self.learn_all(&result["users"]),
            Asked::Refresh => self.refresh_later(now, result, now.0),
            Asked::Leave | Asked::Ping => {}
        }
    }

    fn arrived(&mut self, now: Millis, account: &Json) {
        let user = account["user"].as_str().unwrap_or_default().to_owned();
        if let Some(wanted) = self.identity.user.as_ref().filter(|wanted| **wanted != user) {
            let line = format!("the server knows this token as {user:?}, not as {wanted:?}");
            return self.end(Ending::failed(line));
        }
        self.phase = Phase::Online;
        self.failures = 0;
        let heartbeat_ms = account["heartbeat_ms"].as_u64().unwrap_or(PING_MAX_MS * 3);
        self.ping_every_ms = (heartbeat_ms / 3).clamp(PING_MIN_MS, PING_MAX_MS);
        self.ping_at = now + self.ping_every_ms;
        self.silent = false;
        self.refresh_later(now, account, account["time"].as_u64().unwrap_or(0));
        self.me = Some(user.clone());
        self.tell(News::Online { user });
        // The rooms of a token are joined already.
        for room in account["rooms"].as_array().into_iter().flatten().filter_map(Json::as_str) {
            if !self.rooms.iter().any(|joined| joined == room) {
                self.rooms.push(room.to_owned());
            }
        }
        for room in self.rooms.clone() {
            self.ask_join(&room);
        }
        if !self.watched.is_empty() {
            self.ask_watch(self.watched.clone());
        }
        self.pump(now);
        self.end_if_finished();
    }

    /// Looks for a new token before the old one ends, by the server's clock.
    fn refresh_later(&mut self, now: Millis, result: &Json, time_ms: u64) {
        let left_ms = result["expires"].as_u64().map(|at| at.saturating_sub(time_ms));
        self.refresh_at = left_ms.filter(|_| self.identity.renews).map(|left| now + left / 5 * 4);
    }

    fn refused(&mut self, now: Millis, id: u64, asked: Asked, error: &Json) {
        let message = error["message"].as_str().unwrap_or("refused").to_owned();
        let retry_after_ms = error["data"]["retry_after_ms"].as_u64();
        match asked {
            Asked::Login => self.login_refused(now, &message, error, retry_after_ms),
            Asked::Send => match retry_after_ms {
                Some(ms) => self.outgoing.again(id, now + ms),
                None => {
                    if let Some(waiting) = self.outgoing.take(id) {
                        self.tell(News::NotSent { message: waiting, why: message });
                        self.end_if_finished();
                    }
                }
            },
            Asked::Join { room } => {
                self.rooms.retain(|joined| *joined != room);
                self.tell(News::NotJoined { room, why: message });
            }
            Asked::Watch { users } => self.watched.retain(|user| !users.contains(user)),
            Asked::Members { told: false, .. } | Asked::Ping | Asked::Refresh => {}
            Asked::Members { .. } | Asked::Presence { .. } | Asked::Leave => {
                self.tell(News::Refused { why: message });
            }
        }
    }

    fn login_refused(&mut self, now: Millis, message: &str, error: &Json, retry: Option<u64>) {
        let reason = error["data"]["reason"].as_str().unwrap_or_default();
        let why = format!("the login was refused: {message} ({reason})");
        // A token may have ended on its way here; what is refused twice stays refused.
        let renewed = error["code"] == -32001 && self.identity.renews && self.has_arrived();
        if retry.is_some() || (renewed && self.failures == 0) {
            return self.come_back(now, &why, retry.unwrap_or(0));
        }
        self.end(Ending::failed(why));
    }

    // What is known.

    fn learn_all(&mut self, users: &Json) {
        for (user, state) in users.as_object().into_iter().flatten() {
            self.learn(user, state);
        }
    }

    /// Of two states of a user the one with the larger version is the newer.
    fn learn(&mut self, user: &str, state: &Json) {
        let version = state["version"].as_u64().unwrap_or(0);
        if self.versions.get(user).is_some_and(|known| *known >= version) {
            return;
        }
        // Of those one does not watch nothing comes by itself: there is nothing to compare.
        if self.watched.iter().any(|watched| watched == user) {
            self.versions.insert(user.to_owned(), version);
        }
        let devices = state["devices"].as_array().into_iter().flatten();
        let named = |device: &Json| {
            let text = |name: &str| device[name].as_str().filter(|text| !text.is_empty());
            text("kind").or_else(|| text("id")).map(str::to_owned)
        };
        let devices = devices.filter_map(named).collect();
        let online = state["online"] == true;
        self.tell(News::Presence { user: user.to_owned(), online, devices });
    }
}
