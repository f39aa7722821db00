//! How packs are compressed: by the build script, and tightly by gdn-pack.

/// The bytes, compressed by brotli with a window that holds them all, as far as windows go. Quality is 0 to 11.
pub fn compress(bytes: &[u8], quality: i32) -> std::io::Result<Vec<u8>> {
    let window = (usize::BITS - bytes.len().leading_zeros()).clamp(16, 24);
    let params = brotli::enc::BrotliEncoderParams {
        quality,
        lgwin: window as i32,
        size_hint: bytes.len(),
        ..Default::default()
    };
    let mut packed = Vec::new();
    brotli::BrotliCompress(&mut &bytes[..], &mut packed, &params)?;
    Ok(packed)
}
