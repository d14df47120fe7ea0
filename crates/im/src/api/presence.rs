//! `GET /api/presence`: who is online.

use super::error::ApiError;
use super::{Call, ok, query};
use crate::ids::UserId;
use crate::online::Asker;
use crate::protocol::params::PRESENCE_USERS_MAX;
use dunlin_server::Response;

impl Call<'_, '_> {
    /// With Redis the answer comes later, and `None` is given.
    pub(super) fn presence(&mut self) -> Result<Option<Response>, ApiError> {
        let users = users(query::parameters(self.request, &["user"])?)?;
        let answer = self.app.ask_presence(self.context, Asker::Request(self.id), users);
        Ok(answer.map(|answer| ok(&answer)))
    }
}

/// Those asked about, each once, in their order.
fn users(pairs: Vec<(String, String)>) -> Result<Vec<UserId<'static>>, ApiError> {
    if pairs.is_empty() {
        return Err(ApiError::parameter("user", "is missing"));
    }
    if pairs.len() > PRESENCE_USERS_MAX {
        let problem = format_args!("may stand {PRESENCE_USERS_MAX} times");
        return Err(ApiError::parameter("user", problem));
    }
    let mut users = Vec::with_capacity(pairs.len());
    for (name, user) in pairs {
        let user = UserId::new(user).map_err(|error| ApiError::parameter(&name, error))?;
        if !users.contains(&user) {
            users.push(user);
        }
    }
    Ok(users)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_at_most_100_and_stand_once() {
        let pairs = |count: usize| -> Vec<(String, String)> {
            (0..count).map(|n| ("user".to_owned(), format!("u{n}"))).collect()
        };
        assert_eq!(users(pairs(100)).unwrap().len(), 100);
        assert!(users(pairs(101)).is_err() && users(pairs(0)).is_err());
        let twice = [pairs(2), pairs(3)].concat();
        assert_eq!(users(twice).unwrap().len(), 3);
        for wrong in [String::new(), "x".repeat(65), "a\n".into()] {
            assert_eq!(users(vec![("user".into(), wrong)]).unwrap_err().status, 400);
        }
    }
}
