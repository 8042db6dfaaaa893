//! The file of constants.
use super::{
    super::{
        OnnxError, data,
        proto::DataType,
        stored::{Source, Stored},
    },
    ir::{Network, Op, Port, kind},
};
use crate::{
    checkpoint::{FileRecord, OutputDir},
    model::Model,
    progress::{Progress, Unit},
};
use std::collections::BTreeMap;

/// Where constants begin.
const ALIGNMENT: u64 = 64;

/// Constants of a network with the places of their bytes.
#[derive(Default)]
pub(super) struct Constants<'a> {
    list: Vec<(u64, Stored<'a>)>,
    /// By what they hold.
    known: BTreeMap<String, Port>,
    end: u64,
}

impl<'a> Constants<'a> {
    /// A constant of a network; one that holds the same is not stored again.
    pub(super) fn put(
        &mut self,
        network: &mut Network,
        name: &str,
        (element, shape): (DataType, Vec<usize>),
        source: Source<'a>,
    ) -> Port {
        // Long bytes are those of one place: they have no twin to be looked for.
        let long = matches!(&source, Source::Bytes(bytes) if bytes.len() > 64);
        let key = if long { String::new() } else { format!("{element:?} {shape:?} {source:?}") };
        if let Some(port) = self.known.get(&key) {
            return *port;
        }
        let words: Vec<String> = shape.iter().map(ToString::to_string).collect();
        let stored = Stored { name: name.to_owned(), kind: element, shape, source };
        let (offset, bytes) = (self.end.next_multiple_of(ALIGNMENT), stored.bytes() as u64);
        self.end = offset + bytes;
        let op = Op::new("Const", 1)
            .with("element_type", kind(element))
            .with("shape", words.join(","))
            .with("offset", offset)
            .with("size", bytes);
        let port = network.layer(op, name, &[], &[kind(element)])[0];
        self.list.push((offset, stored));
        if !long {
            self.known.insert(key, port);
        }
        port
    }

    /// Their number.
    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    /// Bytes of all of them.
    pub(super) fn bytes(&self) -> u64 {
        self.list.iter().map(|(_, it)| it.bytes() as u64).sum()
    }

    /// Writes them, each at its place.
    pub(super) fn write(
        &self,
        model: &Model,
        (output, name): (&OutputDir, &str),
        progress: &dyn Progress,
    ) -> Result<FileRecord, OnnxError> {
        progress.start("export", self.bytes(), Unit::Bytes);
        let written = data::write(output.hashed(name)?, |queue| {
            let mut end = 0;
            for (offset, stored) in &self.list {
                queue.gap((offset - end) as usize);
                end = *offset;
                stored.write(model, &mut |piece| {
                    queue.append(piece);
                    end += piece.len() as u64;
                    progress.advance(piece.len() as u64);
                    Ok(())
                })?;
                if end - offset != stored.bytes() as u64 {
                    return Err(OnnxError::Form { what: format!("tensor `{}`", stored.name) });
                }
                queue.end();
            }
            Ok(())
        });
        progress.finish();
        Ok(written?.2)
    }
}
