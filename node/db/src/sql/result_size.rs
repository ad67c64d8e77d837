//! What results take in memory, for the limits on them.
use node_values::{Cell, Rows, StatementResult};

/// What a row and a cell take in memory beside their content.
const ROW_BYTES: usize = 24;
const CELL_BYTES: usize = 32;

/// About what a row takes in memory.
pub(crate) fn row_bytes(row: &[Cell]) -> usize {
    let content = |cell: &Cell| match cell {
        Cell::Text(text) => text.len(),
        Cell::Blob(bytes) => bytes.len(),
        Cell::Null | Cell::Integer(_) | Cell::Real(_) | Cell::Boolean(_) => 0,
    };
    ROW_BYTES
        + row
            .iter()
            .map(|cell| CELL_BYTES + content(cell))
            .sum::<usize>()
}

/// About what a result takes in memory.
pub(crate) fn result_bytes(result: &StatementResult) -> usize {
    match result {
        StatementResult::Rows(Rows { values, .. }) => values.iter().map(|row| row_bytes(row)).sum(),
        StatementResult::Error(text) => text.len(),
        StatementResult::Write(_) => 0,
    }
}
