//! Columns of text for a terminal: as wide as they must be, and as many as fit.
//!
//! Pure. Invariant: a table that is given a width has no line that is longer, as long as it has columns
//! that may be left out.

use crate::terminal::{Mark, Paint};

/// A column.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Column {
    pub(crate) title: &'static str,
    pub(crate) side: Side,
    /// Which is left out first where there is no room: the highest. 0 never is.
    pub(crate) spare: u8,
}

/// Where a column's cells stand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Side {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// What stands in one column of one row.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Cell {
    pub(crate) text: String,
    pub(crate) mark: Mark,
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self { text, mark: Mark::None }
    }
}

/// Between two columns.
pub(crate) const GAP: usize = 2;

/// Rows below their titles, as lines; each row has a cell for each column.
pub(crate) fn lines(
    columns: &[Column],
    rows: &[Vec<Cell>],
    width: Option<usize>,
    paint: Paint,
) -> Vec<String> {
    let gap = " ".repeat(GAP);
    let line = |cells: Vec<Cell>| {
        let texts: Vec<String> =
            cells.iter().map(|cell| paint.text(cell.mark, &cell.text)).collect();
        texts.join(&gap)
    };
    arranged(columns, rows, width).into_iter().map(line).collect()
}

/// Rows below their titles, without the columns that do not fit; each cell as wide as its column, but for
/// words at the end.
pub(crate) fn arranged(
    columns: &[Column],
    rows: &[Vec<Cell>],
    width: Option<usize>,
) -> Vec<Vec<Cell>> {
    let title = |column: &Column| Cell { text: column.title.to_owned(), mark: Mark::Title };
    let titles: Vec<Cell> = columns.iter().map(title).collect();
    let all: Vec<&Vec<Cell>> = std::iter::once(&titles).chain(rows).collect();
    let widths: Vec<usize> = (0..columns.len())
        .map(|place| all.iter().map(|row| letters(&row[place].text)).max().unwrap_or(0))
        .collect();
    let kept = kept(columns, &widths, width);
    let arrange = |row: &Vec<Cell>| {
        let cells = kept.iter().map(|&place| {
            let Cell { text, mark } = &row[place];
            let is_last = kept.last() == Some(&place);
            let width = widths[place];
            let text = match columns[place].side {
                Side::Left if is_last => text.clone(),
                Side::Left => format!("{text:<width$}"),
                Side::Right => format!("{text:>width$}"),
            };
            Cell { text, mark: *mark }
        });
        cells.collect()
    };
    all.into_iter().map(arrange).collect()
}

/// The columns that fit, by their places.
fn kept(columns: &[Column], widths: &[usize], width: Option<usize>) -> Vec<usize> {
    let mut kept: Vec<usize> = (0..columns.len()).collect();
    let Some(width) = width else { return kept };
    let needed = |kept: &[usize]| {
        let cells: usize = kept.iter().map(|&place| widths[place]).sum();
        cells + GAP * kept.len().saturating_sub(1)
    };
    while needed(&kept) > width {
        let spare = kept.iter().copied().filter(|&place| columns[place].spare > 0);
        let Some(first) = spare.max_by_key(|&place| columns[place].spare) else { break };
        kept.retain(|&place| place != first);
    }
    kept
}

fn letters(text: &str) -> usize {
    text.chars().count()
}

/// A label and what is said of it, broken between words where it would not fit.
pub(crate) fn labelled(label: &str, text: &str, width: Option<usize>) -> Vec<String> {
    let width = width.unwrap_or(usize::MAX);
    let mut lines = vec![format!("{label:<LABEL$}")];
    let mut is_first = true;
    for word in text.split_whitespace() {
        if let Some(line) = lines.last_mut()
            && (is_first || letters(line) + 1 + letters(word) <= width)
        {
            line.push_str(if is_first { "" } else { " " });
            line.push_str(word);
        } else {
            lines.push(format!("{:LABEL$}{word}", ""));
        }
        is_first = false;
    }
    lines
}

/// The column behind labels.
const LABEL: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [Column; 4] = [
        Column { title: "NAME", side: Side::Left, spare: 0 },
        Column { title: "PID", side: Side::Right, spare: 2 },
        Column { title: "N", side: Side::Right, spare: 1 },
        Column { title: "DOING", side: Side::Left, spare: 0 },
    ];

    fn table(width: Option<usize>) -> Vec<String> {
        let row = |cells: [&str; 4]| cells.map(|cell| Cell::from(cell.to_owned())).to_vec();
        let rows = [row(["a", "17", "1000", "nothing"]), row(["bob", "4", "7", "tea"])];
        lines(&COLUMNS, &rows, width, Paint::OFF)
    }

    #[test]
    fn numbers_stand_right_and_words_left_without_a_tail() {
        assert_eq!(
            table(None),
            ["NAME  PID     N  DOING", "a      17  1000  nothing", "bob     4     7  tea"]
        );
    }

    #[test]
    fn what_may_be_left_out_is_in_its_order_until_the_rest_fits() {
        assert_eq!(table(Some(24)), table(None));
        assert_eq!(table(Some(23))[1], "a     1000  nothing");
        assert_eq!(table(Some(18))[1], "a     nothing");
        assert_eq!(table(Some(3))[2], "bob   tea", "names and deeds always stand");
    }

    #[test]
    fn marks_take_no_room() {
        let rows = [vec![Cell { text: "x".to_owned(), mark: Mark::Bad }]];
        let column = [Column { title: "A", side: Side::Right, spare: 0 }];
        assert_eq!(
            lines(&column, &rows, Some(1), Paint::ON),
            ["\x1b[1mA\x1b[0m", "\x1b[31mx\x1b[0m"]
        );
    }

    #[test]
    fn long_texts_break_between_words() {
        assert_eq!(labelled("note", "one two three", None), ["note      one two three"]);
        assert_eq!(
            labelled("note", "one two three four", Some(18)),
            ["note      one two", "          three", "          four"]
        );
        assert_eq!(labelled("note", "one-two-three", Some(5)), ["note      one-two-three"]);
    }
}
