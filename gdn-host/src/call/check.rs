//! Looks at every argument of a call before anything is launched.

use super::{Beta, CallError, Decay, Decode, Rows, Start, StatePool, Table, Tensor};
use gdn_kernels::abi::DType;

/// Bytes that the vector loads of q, k and state are aligned to.
const VECTOR_BYTES: u64 = 16;

impl Decode {
    /// Checks every argument.
    ///
    /// # Errors
    /// The first [`CallError`] found; it names the field and its value.
    pub fn check(&self) -> Result<(), CallError> {
        self.shape.check()?;
        self.check_types()?;
        self.check_values()?;
        if self.batch == 0 {
            return Ok(());
        }
        self.check_memory()?;
        let extents = self.extents();
        for (i, written) in extents.iter().enumerate().filter(|(_, e)| e.written) {
            for (j, other) in extents.iter().enumerate() {
                if i != j && written.overlaps(other) {
                    return Err(CallError::Overlap { written: written.field, other: other.field });
                }
            }
        }
        Ok(())
    }

    fn check_types(&self) -> Result<(), CallError> {
        let io = self.q.tensor.dtype;
        let same = |field, have: DType| match have == io {
            true => Ok(()),
            false => Err(CallError::Type { field, have: have.name(), want: "the type of q" }),
        };
        same("k", self.k.tensor.dtype)?;
        same("v", self.v.tensor.dtype)?;
        let out = self.out.tensor.dtype;
        if out != io && out != DType::F32 {
            let want = "the type of q, or f32";
            return Err(CallError::Type { field: "out", have: out.name(), want });
        }
        Ok(())
    }

    fn check_values(&self) -> Result<(), CallError> {
        let bad = |field, value: f32, want| CallError::Value { field, value: value.into(), want };
        if let Some(scale) = self.scale.filter(|s| !s.is_finite()) {
            return Err(bad("scale", scale, "finite"));
        }
        if let Some(eps) = self.l2norm.filter(|e| !(e.is_normal() && *e > 0.0)) {
            return Err(bad("l2norm", eps, "a positive eps"));
        }
        if let Decay::Softplus { threshold, .. } = self.decay
            && !(threshold.is_finite() && threshold >= 0.0)
        {
            return Err(bad("decay.threshold", threshold, "finite and not negative"));
        }
        if let Some(slot) = self.null_slot.filter(|s| *s < 0) {
            let want = "a slot index (negative indices are padding anyway)";
            return Err(CallError::Value { field: "null_slot", value: slot.into(), want });
        }
        Ok(())
    }

    fn check_memory(&self) -> Result<(), CallError> {
        let (s, n) = (&self.shape, self.batch);
        check_rows("q", &self.q, s.key_elements(), n, VECTOR_BYTES)?;
        check_rows("k", &self.k, s.key_elements(), n, VECTOR_BYTES)?;
        check_rows("v", &self.v, s.value_elements(), n, 1)?;
        let hv = u64::from(s.hv);
        match &self.decay {
            Decay::Softplus { a, a_log, dt_bias, .. } => {
                check_rows("decay.a", a, hv, n, 1)?;
                check_tensor("decay.a_log", a_log, hv, 1)?;
                check_tensor("decay.dt_bias", dt_bias, hv, 1)?;
            }
            Decay::Given(g) => check_rows("decay.given", g, hv, n, 1)?,
        }
        match &self.beta {
            Beta::Logits { b, .. } => check_rows("beta.b", b, hv, n, 1)?,
            Beta::Given(beta) => check_rows("beta.given", beta, hv, n, 1)?,
        }
        check_rows("out", &self.out, s.value_elements(), n, 1)?;
        let StatePool { tensor, slots, pitch } = self.state;
        if slots == 0 || slots > i32::MAX as u32 {
            let want = "between 1 and 2^31 - 1";
            return Err(CallError::Value { field: "state.slots", value: slots.into(), want });
        }
        check_rows("state", &Rows { tensor, stride: pitch }, s.state_elements(), slots, VECTOR_BYTES)?;
        check_table("slots", &self.slots, n, 4)?;
        if let Some(table) = &self.write_slots {
            check_table("write_slots", table, n, 4)?;
        }
        if let Start::Reset(table) | Start::HasInitialState(table) = &self.start {
            check_table("start", table, n, 1)?;
        }
        Ok(())
    }
}

/// `batch` rows of `width` elements, aligned to `vector` bytes where that is more than an element.
fn check_rows(
    field: &'static str,
    rows: &Rows,
    width: u64,
    batch: u32,
    vector: u64,
) -> Result<(), CallError> {
    let size = rows.tensor.dtype.size() as u64;
    // One row needs no stride; a stride of 0 there is what a one-row view may carry.
    let min = if batch > 1 { width } else { 0 };
    let max = u64::from(u32::MAX);
    if rows.stride < min || rows.stride > max {
        return Err(CallError::Stride { field, stride: rows.stride, min, max });
    }
    let bytes = rows.stride * size;
    if batch > 1 && !bytes.is_multiple_of(vector) {
        return Err(CallError::MisalignedStride { field, stride: rows.stride, bytes, align: vector });
    }
    check_tensor(field, &rows.tensor, u64::from(batch - 1) * rows.stride + width, vector)
}

/// A tensor of which `need` elements are touched.
fn check_tensor(field: &'static str, tensor: &Tensor, need: u64, vector: u64) -> Result<(), CallError> {
    check_address(field, tensor.address, vector.max(tensor.dtype.size() as u64))?;
    if tensor.len < need {
        return Err(CallError::TooShort { field, need, have: tensor.len });
    }
    Ok(())
}

/// A table of entries of `size` bytes, one a sequence.
fn check_table(field: &'static str, table: &Table, batch: u32, size: u64) -> Result<(), CallError> {
    check_address(field, table.address, size)?;
    if table.len != u64::from(batch) {
        return Err(CallError::TableLength { field, have: table.len, batch });
    }
    Ok(())
}

fn check_address(field: &'static str, address: u64, align: u64) -> Result<(), CallError> {
    if address == 0 {
        return Err(CallError::Null { field });
    }
    if !address.is_multiple_of(align) {
        return Err(CallError::Misaligned { field, address, align });
    }
    Ok(())
}
