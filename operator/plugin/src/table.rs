//! Columns of text, as kubectl prints them.

/// Spaces between two columns.
const GAP: usize = 3;

/// Rows under a head, each column as wide as its widest cell. Line breaks within a cell would tear the table and become spaces.
pub(crate) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let clean = |cell: &str| cell.split_whitespace().collect::<Vec<_>>().join(" ");
    let rows: Vec<Vec<String>> = std::iter::once(head.iter().map(|h| (*h).to_owned()).collect())
        .chain(
            rows.iter()
                .map(|row| row.iter().map(|c| clean(c)).collect()),
        )
        .collect();
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(cell);
            let pad = width + GAP - cell.chars().count();
            line.extend(std::iter::repeat_n(' ', pad));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
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
