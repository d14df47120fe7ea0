//! Whether an extension's names go beside the IM's own.

use super::Extension;
use crate::backend;
use crate::protocol::Method;
use crate::tables;
use dunlin_server::Sessions;
use dunlin_table::SchemaError;

/// What the IM's own columns begin with.
const COLUMN_PREFIX: &str = "im_";
/// What the IM's own areas begin with.
const AREA_PREFIX: &str = "im.";
/// What JSON-RPC keeps for itself.
const RESERVED_PREFIX: &str = "rpc.";
/// Longest name of a method, in bytes.
const METHOD_NAME_MAX: usize = 64;

/// An extension cannot be had: a name of its is taken, or is none.
#[derive(Debug, thiserror::Error)]
pub enum ExtensionError {
    /// The method is one of the IM's.
    #[error(
        "the extension's method {0:?} is a method of the IM: give it another name, such as app.{0}"
    )]
    MethodTaken(String),
    /// A method stands twice in [`Extension::methods`].
    #[error("the extension names the method {0:?} twice")]
    MethodTwice(String),
    /// The name cannot be a method's.
    #[error(
        "the extension's method {0:?} needs a name of 1 to {METHOD_NAME_MAX} bytes without control \
         characters that does not begin with rpc., which JSON-RPC keeps for itself"
    )]
    MethodName(String),
    /// The name is kept for columns of the IM.
    #[error("the extension's column {0:?} begins with im_, as the IM's own do")]
    ColumnTaken(String),
    /// The columns make no session table together with those that are there.
    #[error("the extension's columns do not go into the session table: {0}")]
    Columns(#[source] SchemaError),
    /// The name is kept for areas of the IM.
    #[error("the extension's area {0:?} begins with im., as the IM's own do")]
    AreaTaken(&'static str),
    /// An area stands twice in [`Extension::areas`].
    #[error("the extension names the area {0:?} twice")]
    AreaTwice(&'static str),
}

/// Whether an extension can be had.
///
/// # Errors
/// See [`ExtensionError`].
pub(crate) fn check(extension: &dyn Extension) -> Result<(), ExtensionError> {
    check_methods(extension.methods())?;
    let mut columns = extension.columns();
    if let Some(taken) = columns.iter().find(|column| column.name.starts_with(COLUMN_PREFIX)) {
        return Err(ExtensionError::ColumnTaken(taken.name.to_string()));
    }
    columns.extend(tables::columns());
    columns.extend(backend::columns());
    Sessions::schema(columns).map_err(ExtensionError::Columns)?;
    let areas = extension.areas();
    for (place, area) in areas.iter().enumerate() {
        if area.name.starts_with(AREA_PREFIX) {
            return Err(ExtensionError::AreaTaken(area.name));
        }
        if areas[..place].iter().any(|earlier| earlier.name == area.name) {
            return Err(ExtensionError::AreaTwice(area.name));
        }
    }
    Ok(())
}

fn check_methods(methods: &[&str]) -> Result<(), ExtensionError> {
    for (place, name) in methods.iter().enumerate() {
        let is_name = (1..=METHOD_NAME_MAX).contains(&name.len())
            && !name.chars().any(char::is_control)
            && !name.starts_with(RESERVED_PREFIX);
        if !is_name {
            return Err(ExtensionError::MethodName((*name).to_owned()));
        }
        if Method::by_name(name).is_some() {
            return Err(ExtensionError::MethodTaken((*name).to_owned()));
        }
        if methods[..place].contains(name) {
            return Err(ExtensionError::MethodTwice((*name).to_owned()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::METHODS;
    use dunlin_server::AreaRequest;
    use dunlin_table::{Column, ColumnKind};

    #[derive(Default)]
    struct Named {
        methods: Vec<&'static str>,
        columns: Vec<&'static str>,
        areas: Vec<&'static str>,
    }

    impl Extension for Named {
        fn columns(&self) -> Vec<Column> {
            let column = |name: &&str| Column { name: (*name).into(), kind: ColumnKind::Counter };
            self.columns.iter().map(column).collect()
        }

        fn areas(&self) -> Vec<AreaRequest> {
            self.areas.iter().map(|name| AreaRequest { name, words: 1 }).collect()
        }

        fn methods(&self) -> &[&str] {
            &self.methods
        }
    }

    #[test]
    fn methods_stand_beside_those_of_the_im() {
        let check = |methods: &[&'static str]| {
            check(&Named { methods: methods.to_vec(), ..Named::default() })
                .map_err(|error| error.to_string())
        };
        assert_eq!(check(&["game.move", "Send", "é"]), Ok(()));
        for (name, _) in METHODS {
            let refused = check(&["game.move", name]).unwrap_err();
            assert!(refused.contains(&format!("{name:?} is a method of the IM")), "{refused}");
        }
        assert!(check(&["a", "b", "a"]).unwrap_err().contains("\"a\" twice"));
        let long = "x".repeat(METHOD_NAME_MAX + 1).leak();
        for name in ["", "rpc.on", "a\nb", long] {
            assert!(check(&[name]).unwrap_err().contains("needs a name"), "{name:?}");
        }
        assert_eq!(check(&[&long[..METHOD_NAME_MAX]]), Ok(()));
    }

    #[test]
    fn columns_and_areas_do_too() {
        let check = |columns: &[&'static str], areas: &[&'static str]| {
            let (columns, areas) = (columns.to_vec(), areas.to_vec());
            check(&Named { columns, areas, ..Named::default() }).map_err(|error| error.to_string())
        };
        assert_eq!(check(&["moves", "wins"], &["game.scores", "game.rounds"]), Ok(()));
        assert!(check(&["im_user"], &[]).unwrap_err().contains("\"im_user\" begins with im_"));
        // One of the engine's own.
        assert!(check(&["deadline"], &[]).unwrap_err().contains("deadline"));
        assert!(check(&["moves", "moves"], &[]).unwrap_err().contains("moves"));
        assert!(check(&[], &["im.users"]).unwrap_err().contains("\"im.users\" begins with im."));
        assert!(check(&[], &["a", "a"]).unwrap_err().contains("\"a\" twice"));
    }
}
