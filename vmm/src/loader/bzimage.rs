//! The kernel inside a bzImage (Documentation/arch/x86/boot.rst, "The Real-Mode Kernel Header").

use std::io::{Cursor, Read};

use super::{Error, IMAGE_MAX};

const SETUP_SECTORS_AT: usize = 0x1f1;
const MAGIC_AT: usize = 0x202;
const VERSION_AT: usize = 0x206;
const PAYLOAD_OFFSET_AT: usize = 0x248;
const PAYLOAD_LENGTH_AT: usize = 0x24c;
const SECTOR: u64 = 512;
/// The first protocol whose header says where the payload is.
const VERSION_WITH_PAYLOAD: u16 = 0x208;

/// Unpacks the kernel's ELF file.
pub(super) fn unpack(image: &[u8]) -> Result<Vec<u8>, Error> {
    if image.get(MAGIC_AT..MAGIC_AT + 4) != Some(b"HdrS") {
        return Err(Error::Unknown);
    }
    let payload = payload(image)?;
    let unpacked = inflate(payload)?;
    if unpacked.len() as u64 > IMAGE_MAX {
        return Err(Error::Bomb);
    }
    Ok(unpacked)
}

fn payload(image: &[u8]) -> Result<&[u8], Error> {
    let word = |at: usize| -> u64 {
        let bytes = image.get(at..at + 4).and_then(|b| b.try_into().ok());
        bytes.map_or(0, u32::from_le_bytes).into()
    };
    let version = u16::try_from(word(VERSION_AT) & 0xffff).unwrap_or_default();
    if version < VERSION_WITH_PAYLOAD {
        return Err(Error::OldProtocol { version });
    }
    let sectors = match image.get(SETUP_SECTORS_AT) {
        // For compatibility, the documentation says.
        None | Some(0) => 4,
        Some(count) => u64::from(*count),
    };
    // Relative to the protected-mode code, which begins behind the boot sector and the setup sectors.
    let offset = (sectors + 1) * SECTOR + word(PAYLOAD_OFFSET_AT);
    let length = word(PAYLOAD_LENGTH_AT);
    let range = usize::try_from(offset).ok().zip(usize::try_from(length).ok());
    range
        .and_then(|(offset, length)| image.get(offset..offset.checked_add(length)?))
        .ok_or(Error::Truncated {
            offset,
            length,
            size: image.len() as u64,
        })
}

/// Unpacks by the first bytes. Behind all but gzip's stream the length of the result is appended, which is not part of it.
fn inflate(payload: &[u8]) -> Result<Vec<u8>, Error> {
    let source = Cursor::new(payload);
    match payload {
        [0x1f, 0x8b, ..] => drain(flate2::read::GzDecoder::new(source)),
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => drain(liblzma::read::XzDecoder::new(source)),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            let decoder = zstd::Decoder::new(source).map_err(Error::Damaged)?;
            drain(decoder.single_frame())
        }
        // The "legacy" frame of lz4: block after block, to the end, for which the length would pass as one more.
        [0x02, 0x21, 0x4c, 0x18, blocks @ .., _, _, _, _] => {
            let packed = &payload[..blocks.len() + 4];
            drain(lz4_flex::frame::FrameDecoder::new(Cursor::new(packed)))
        }
        // A kernel built without compression.
        [0x7f, b'E', b'L', b'F', ..] => Ok(payload.to_vec()),
        other => {
            let mut first = [0; 6];
            for (to, from) in first.iter_mut().zip(other) {
                *to = *from;
            }
            Err(Error::UnknownPacking(first))
        }
    }
}

fn drain(decoder: impl Read) -> Result<Vec<u8>, Error> {
    let mut kernel = Vec::new();
    decoder
        .take(IMAGE_MAX + 1)
        .read_to_end(&mut kernel)
        .map_err(Error::Damaged)?;
    Ok(kernel)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    /// A bzImage of one setup sector around a payload.
    fn image(payload: &[u8]) -> Vec<u8> {
        let mut image = vec![0; 1024];
        image[SETUP_SECTORS_AT] = 1;
        image[MAGIC_AT..MAGIC_AT + 4].copy_from_slice(b"HdrS");
        image[VERSION_AT..VERSION_AT + 2].copy_from_slice(&0x20f_u16.to_le_bytes());
        image[PAYLOAD_OFFSET_AT..PAYLOAD_OFFSET_AT + 4].copy_from_slice(&16_u32.to_le_bytes());
        let length = u32::try_from(payload.len()).unwrap();
        image[PAYLOAD_LENGTH_AT..PAYLOAD_LENGTH_AT + 4].copy_from_slice(&length.to_le_bytes());
        image.extend_from_slice(&[0; 16]);
        image.extend_from_slice(payload);
        image
    }

    fn kernel() -> Vec<u8> {
        let mut kernel = b"\x7fELF".to_vec();
        let mut state = 1_u32;
        kernel.resize_with(200_000, || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            // Neither noise nor a single byte: something for every packer to do.
            state.to_le_bytes()[3] & 0x3f
        });
        kernel
    }

    fn with_length(mut packed: Vec<u8>) -> Vec<u8> {
        packed.extend_from_slice(&200_000_u32.to_le_bytes());
        packed
    }

    #[test]
    fn every_packing_comes_apart() {
        let kernel = kernel();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&kernel).unwrap();
        let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
        xz.write_all(&kernel).unwrap();
        let zstd = zstd::encode_all(&kernel[..], 1).unwrap();
        let block = lz4_flex::block::compress(&kernel);
        let mut lz4 = vec![0x02, 0x21, 0x4c, 0x18];
        lz4.extend_from_slice(&u32::try_from(block.len()).unwrap().to_le_bytes());
        lz4.extend_from_slice(&block);
        for (name, packed) in [
            ("lz4", with_length(lz4)),
            ("gzip", gzip.finish().unwrap()),
            ("xz", with_length(xz.finish().unwrap())),
            ("zstd", with_length(zstd)),
            ("none", kernel.clone()),
        ] {
            assert!(unpack(&image(&packed)).unwrap() == kernel, "{name}");
        }
    }

    #[test]
    fn lies_in_the_header_are_found() {
        let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
        xz.write_all(&kernel()).unwrap();
        let good = image(&xz.finish().unwrap());
        let mut old = good.clone();
        old[VERSION_AT] = 7;
        old[VERSION_AT + 1] = 2;
        assert!(unpack(&old).unwrap_err().to_string().contains("2.07"));
        for at in [PAYLOAD_OFFSET_AT, PAYLOAD_LENGTH_AT] {
            let mut bad = good.clone();
            bad[at..at + 4].fill(0xff);
            assert!(
                matches!(unpack(&bad).unwrap_err(), Error::Truncated { .. }),
                "{at:#x}"
            );
        }
        let mut cut = good.clone();
        cut.truncate(1100);
        assert!(matches!(unpack(&cut).unwrap_err(), Error::Truncated { .. }));
        let mut broken = good.clone();
        broken[3000..3100].fill(0);
        assert!(matches!(unpack(&broken).unwrap_err(), Error::Damaged(_)));
        assert!(matches!(
            unpack(&image(b"BZh91AY&SY")).unwrap_err(),
            Error::UnknownPacking(_)
        ));
    }
}
