//! Approximate memory use of results, for the limits on them.
use node_values::{Cell, Rows, StatementResult};

/// Memory of a row and of a cell, without their content.
const ROW_BYTES: usize = 24;
const CELL_BYTES: usize = 32;

/// Approximate memory use of a row, in bytes.
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

/// Approximate memory use of a result, in bytes.
pub(crate) fn result_bytes(result: &StatementResult) -> usize {
    match result {
        StatementResult::Rows(Rows { values, .. }) => values.iter().map(|row| row_bytes(row)).sum(),
        StatementResult::Error(text) => text.len(),
        StatementResult::Write(_) => 0,
    }
}
