//! Checks that calls share: addresses, strides, lengths, numbers.

use super::{CallError, Rows, Table, Tensor};
use gdn_kernels::abi::Entry;

/// Bytes that the vector loads of the kernels are aligned to.
pub(super) const VECTOR_BYTES: u64 = 16;

/// `count` rows of `width` elements, aligned to `vector` bytes where that is more than an element.
pub(super) fn check_rows(
    field: &'static str,
    rows: &Rows,
    width: u64,
    count: u64,
    vector: u64,
) -> Result<(), CallError> {
    if count == 0 {
        return Ok(());
    }
    let size = rows.tensor.dtype.size() as u64;
    // One row needs no stride; a stride of 0 there is what a one-row view may carry.
    let min = if count > 1 { width } else { 0 };
    let max = u64::from(u32::MAX);
    if min > max {
        return Err(CallError::RowTooLong { field, width, max });
    }
    if rows.stride < min || rows.stride > max {
        return Err(CallError::Stride { field, stride: rows.stride, min, max });
    }
    let bytes = rows.stride * size;
    if count > 1 && !bytes.is_multiple_of(vector) {
        return Err(CallError::MisalignedStride { field, stride: rows.stride, bytes, align: vector });
    }
    let need = (count - 1).saturating_mul(rows.stride).saturating_add(width);
    check_tensor(field, &rows.tensor, need, vector)
}

/// A tensor of which `need` elements are touched.
pub(super) fn check_tensor(
    field: &'static str,
    tensor: &Tensor,
    need: u64,
    vector: u64,
) -> Result<(), CallError> {
    check_address(field, tensor.address, vector.max(tensor.dtype.size() as u64))?;
    if tensor.len < need {
        return Err(CallError::TooShort { field, need, have: tensor.len });
    }
    check_end(field, tensor.address, need, tensor.dtype.size() as u64)
}

/// A table of indices, counts or lengths: `rows` rows of `columns` entries.
pub(super) fn check_table(
    field: &'static str,
    table: &Table,
    rows: u64,
    columns: u64,
) -> Result<(), CallError> {
    if table.entry == Entry::U8 {
        return Err(CallError::Type { field, have: table.entry.name(), want: "i32, u32 or i64" });
    }
    check_entries(field, table, rows, columns)
}

/// An optional table of an index a sequence.
pub(super) fn check_optional_table(
    field: &'static str,
    table: Option<&Table>,
    batch: u32,
) -> Result<(), CallError> {
    table.map_or(Ok(()), |table| check_table(field, table, batch.into(), 1))
}

/// An optional table of a flag a sequence.
pub(super) fn check_optional_flags(
    field: &'static str,
    table: Option<&Table>,
    batch: u32,
) -> Result<(), CallError> {
    let Some(table) = table else { return Ok(()) };
    if table.entry == Entry::I64 {
        return Err(CallError::Type { field, have: table.entry.name(), want: "u8, i32 or u32" });
    }
    check_entries(field, table, batch.into(), 1)
}

/// A table of whatever entries.
fn check_entries(field: &'static str, table: &Table, rows: u64, columns: u64) -> Result<(), CallError> {
    if rows > 0 {
        check_address(field, table.address, table.entry.size() as u64)?;
    }
    if table.columns != columns {
        return Err(CallError::TableColumns { field, have: table.columns, need: columns });
    }
    if table.len != rows {
        return Err(CallError::TableLength { field, have: table.len, need: rows });
    }
    // One row needs no stride. The kernels take it in bytes, of 32 bits.
    let (min, max) = (if rows > 1 { columns } else { 0 }, u64::from(u32::MAX) / table.entry.size() as u64);
    if min > max {
        return Err(CallError::RowTooLong { field, width: columns, max });
    }
    if table.stride < min || table.stride > max {
        return Err(CallError::Stride { field, stride: table.stride, min, max });
    }
    let need = rows.saturating_sub(1).saturating_mul(table.stride).saturating_add(columns);
    check_end(field, table.address, need, table.entry.size() as u64)
}

pub(super) fn check_address(field: &'static str, address: u64, align: u64) -> Result<(), CallError> {
    if address == 0 {
        return Err(CallError::Null { field });
    }
    if !address.is_multiple_of(align) {
        return Err(CallError::Misaligned { field, address, align });
    }
    Ok(())
}

/// `need` elements of `size` bytes end before the last address does.
pub(super) fn check_end(field: &'static str, address: u64, need: u64, size: u64) -> Result<(), CallError> {
    let end = need.checked_mul(size).and_then(|bytes| address.checked_add(bytes));
    end.map_or(Err(CallError::PastTheLastAddress { field, address, need }), |_| Ok(()))
}

/// A number within what `want` says.
pub(super) fn check_value(
    field: &'static str,
    value: impl Into<f64>,
    holds: bool,
    want: &'static str,
) -> Result<(), CallError> {
    if holds { Ok(()) } else { Err(CallError::Value { field, value: value.into(), want }) }
}

/// An eps of a norm.
pub(super) fn check_eps(field: &'static str, eps: f32) -> Result<(), CallError> {
    check_value(field, eps, eps.is_normal() && eps > 0.0, "a positive eps")
}

/// An index that marks padding.
pub(super) fn check_null_slot(null_slot: Option<i32>) -> Result<(), CallError> {
    let want = "a slot index (negative indices are padding anyway)";
    null_slot.map_or(Ok(()), |slot| check_value("null_slot", slot, slot >= 0, want))
}

#[cfg(test)]
mod tests {
    use super::*;
    use gdn_kernels::abi::DType;

    /// What rows in endless memory at `address` are refused with.
    fn refusal(address: u64, stride: u64, width: u64, count: u64) -> String {
        let tensor = Tensor { address, dtype: DType::F32, len: u64::MAX };
        check_rows("q", &Rows { tensor, stride }, width, count, VECTOR_BYTES).unwrap_err().to_string()
    }

    #[test]
    fn lengths_that_lie_are_refused_by_name() {
        let text = "q: rows of 4294967296 elements are longer than the largest stride, 4294967295";
        assert_eq!(refusal(16, 16, 1 << 32, 2), text);
        let text = "q: 4611686018427387904 elements from address 0x10 on reach past the last address";
        assert_eq!(refusal(16, 0, 1 << 62, 1), text);
        assert!(refusal(u64::MAX - 15, 4, 4, 2).starts_with("q: 8 elements from address 0xfffffffffffffff0"));
        assert!(refusal(16, (1 << 32) - 4, 4, u64::MAX).ends_with("on reach past the last address"));
        let table = Table::i64(u64::MAX - 7, 2);
        let error = check_table("slots", &table, 2, 1).unwrap_err().to_string();
        assert!(error.starts_with("slots: 2 elements from address 0xfffffffffffffff8"), "{error}");
    }
}
