//! Columns as docker pads them: at least 10 wide, 3 spaces between, the last one as it is.

use super::harmless;

/// Lays out lines whose cells are separated by tabs.
pub(super) fn layout(lines: &[String]) -> String {
    let rows: Vec<Vec<String>> = lines
        .iter()
        .map(|line| {
            line.split('\t')
                .map(|cell| harmless(cell).replace('\n', " "))
                .collect()
        })
        .collect();
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        // A row's last cell takes no part: nothing stands behind it.
        let cells = rows.iter().filter(|row| row.len() > column + 1);
        cells
            .map(|row| row[column].chars().count() + 3)
            .max()
            .unwrap_or(0)
            .max(10)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut out = String::new();
    for row in &rows {
        for (i, cell) in row.iter().enumerate() {
            out.push_str(cell);
            if i + 1 < row.len() {
                out.extend(std::iter::repeat_n(' ', widths[i] - cell.chars().count()));
            }
        }
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let lines = ["ID\tNAME\tX", "0123456789ab\tweb\t1", "c\tü\t"].map(str::to_owned);
        assert_eq!(
            layout(&lines),
            "ID             NAME      X\n0123456789ab   web       1\nc              ü         \n"
        );
    }

    #[test]
    fn a_cell_cannot_forge_a_line() {
        assert_eq!(layout(&["a\nb\u{1b}[2J".to_owned()]), "a b\\u{1b}[2J\n");
    }
}
