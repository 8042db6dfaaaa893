//! The file of the weights: written and hashed on a thread of its own, while the next pieces are
//! made.
use super::OnnxError;
use crate::checkpoint::{CheckpointError, FileRecord, HashedFile, hex};
use sha2::{Digest, Sha256};
use std::{
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread,
};

/// Bytes that go to the thread at a time, and how many such pieces may wait there.
const PIECE: usize = 4 << 20;
const QUEUE: usize = 8;

/// What is to be written next.
enum Part {
    /// Bytes between tensors.
    Gap(Vec<u8>),
    /// Bytes of a tensor.
    Bytes(Vec<u8>),
    /// The end of a tensor.
    End,
}

/// Takes the bytes of one tensor after another.
pub(super) struct DataQueue(SyncSender<Part>);

impl DataQueue {
    /// Writes zeros.
    pub(super) fn gap(&self, bytes: usize) {
        self.send(Part::Gap(vec![0; bytes]));
    }

    /// Appends to the tensor.
    pub(super) fn append(&self, bytes: &[u8]) {
        for piece in bytes.chunks(PIECE) {
            self.send(Part::Bytes(piece.to_vec()));
        }
    }

    /// Ends the tensor.
    pub(super) fn end(&self) {
        self.send(Part::End);
    }

    fn send(&self, part: Part) {
        // Fails when the thread has ended with an error, which the end of the work tells.
        let _error = self.0.send(part);
    }
}

/// Lets `make` fill a file; gives what it made, the hash of each tensor, and what the file is.
pub(super) fn write<T>(
    mut file: HashedFile,
    make: impl FnOnce(DataQueue) -> Result<T, OnnxError>,
) -> Result<(T, Vec<String>, FileRecord), OnnxError> {
    thread::scope(|scope| {
        let (queue, parts) = sync_channel(QUEUE);
        let writing = scope.spawn(move || {
            let hashes = append(&mut file, &parts)?;
            Ok::<_, CheckpointError>((hashes, file.finish()?))
        });
        let made = make(DataQueue(queue));
        let written = writing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let (hashes, record) = written?;
        Ok((made?, hashes, record))
    })
}

fn append(file: &mut HashedFile, parts: &Receiver<Part>) -> Result<Vec<String>, CheckpointError> {
    let (mut hashes, mut hash) = (Vec::new(), Sha256::new());
    for part in parts {
        match part {
            Part::Gap(bytes) => file.append(&bytes)?,
            Part::Bytes(bytes) => {
                hash.update(&bytes);
                file.append(&bytes)?;
            }
            Part::End => hashes.push(hex(&hash.finalize_reset())),
        }
    }
    Ok(hashes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::{Folder, OutputDir, sha256};

    #[test]
    fn tensors_and_the_file_have_their_hashes() {
        let top = tempfile::tempdir().unwrap();
        let output = OutputDir::create(&top.path().join("out"), false).unwrap();
        let long = vec![7; PIECE + 1];
        let made = write(output.hashed("data").unwrap(), |queue| {
            queue.append(b"ab");
            queue.append(b"c");
            queue.end();
            queue.gap(5);
            queue.append(&long);
            queue.end();
            queue.end();
            Ok(3)
        });
        let (made, hashes, record) = made.unwrap();
        assert_eq!((made, &hashes), (3, &vec![sha256(b"abc"), sha256(&long), sha256(b"")]));
        let whole = [b"abc".as_slice(), &[0; 5], &long].concat();
        assert_eq!(record, FileRecord { bytes: whole.len() as u64, sha256: sha256(&whole) });
        output.commit().unwrap();
        let folder = Folder::open(top.path().join("out").to_str().unwrap()).unwrap();
        assert!(*folder.read("data").unwrap().unwrap() == *whole);
    }

    #[test]
    fn what_fails_is_told() {
        let top = tempfile::tempdir().unwrap();
        let output = OutputDir::create(&top.path().join("out"), false).unwrap();
        let made = write(output.hashed("data").unwrap(), |queue| -> Result<(), _> {
            queue.append(b"ab");
            Err(OnnxError::NoBlocks)
        });
        assert!(matches!(made, Err(OnnxError::NoBlocks)));
    }
}
