//! Tables of text in the style of kubectl, laid out by comfy-table.
use comfy_table::{Table, presets::NOTHING};

/// Spaces between two columns.
const GAP: u16 = 3;

/// Rows under a header, each column as wide as its widest cell, without trailing spaces. Line breaks and
/// repeated spaces within a cell become one space, because they would break the layout.
pub(crate) fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let one_line = |cell: &String| cell.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(header);
    for row in rows {
        table.add_row(row.iter().map(one_line));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, GAP));
    }
    table.trim_fmt() + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_they_must_be() {
        let rows = [
            vec!["demo-0".to_owned(), "ä".to_owned(), "two\nlines".to_owned()],
            vec!["d".to_owned(), "voter".to_owned(), String::new()],
        ];
        let expected = "NAME     ROLE    WHY\ndemo-0   ä       two lines\nd        voter\n";
        assert_eq!(table(&["NAME", "ROLE", "WHY"], &rows), expected);
    }
}
