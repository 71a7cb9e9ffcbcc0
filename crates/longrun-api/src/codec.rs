//! [`Codec`]: protobuf over gRPC, where bytes that are no message are the sender's fault.

use prost::Message;
use tonic::Status;
use tonic::codec::{BufferSettings, DecodeBuf, Decoder};
use tonic_prost::{ProstCodec, ProstEncoder};

/// The codec of all services here. A message that cannot be decoded is INVALID_ARGUMENT; tonic's own codec calls it
/// INTERNAL, as if the server had failed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Codec<T, U>(std::marker::PhantomData<fn(T) -> U>);

impl<T, U> Default for Codec<T, U> {
    fn default() -> Self {
        Self(std::marker::PhantomData)
    }
}

impl<T: Message + Send + 'static, U: Message + Default + Send + 'static> tonic::codec::Codec for Codec<T, U> {
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = MessageDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstCodec::<T, U>::raw_encoder(BufferSettings::default())
    }

    fn decoder(&mut self) -> Self::Decoder {
        MessageDecoder(std::marker::PhantomData)
    }
}

/// Decodes messages.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MessageDecoder<U>(std::marker::PhantomData<fn() -> U>);

impl<U: Message + Default> Decoder for MessageDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        // The error tells field names of the protocol, and nothing that a stranger wrote.
        U::decode(buffer).map(Some).map_err(|error| Status::invalid_argument(error.to_string()))
    }
}
