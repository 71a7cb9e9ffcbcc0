//! The service from its callers' side: a short story, with every operation as JSON.

use std::error::Error;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use longrun::store::Store;
use longrun::{
    Call, Caller, Engine, Kind, Operation, OperationId, OperationQuery, PageRequest, Resource, ResourceId,
    ResourceList,
};

use super::fabric::{Cidr, Fabric, Mood};
use super::{
    CreateNetwork, CreateSubnet, DeleteNetwork, DeleteSubnet, Network, NewNetwork, NewSubnet, Rename, Subnet,
    Target, UpdateSubnet, register,
};

pub(crate) type Outcome<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

/// A service that runs, and somebody who tells what happens.
struct Teller<'a> {
    engine: Engine,
    print: &'a (dyn Fn(&str) + Sync),
}

impl Teller<'_> {
    fn say(&self, text: &str) {
        (self.print)(&format!("\n== {text}"));
    }

    fn show(&self, operation: &Operation) -> Outcome {
        (self.print)(&serde_json::to_string_pretty(operation)?);
        Ok(())
    }

    fn list<T: Debug>(&self, items: impl IntoIterator<Item = T>) {
        items.into_iter().for_each(|item| (self.print)(&format!("  {item:?}")));
    }

    /// Every call that changes something is a submit. The answer comes when the operation is durable, not when it is done.
    async fn call<K: Kind>(&self, request: K::Request) -> Outcome<Operation> {
        // With a key of the caller's, `.key(..)`, a repeat of the call would give the same operation.
        Ok(self.engine.submit::<K>(&request, Call::by(Caller::new("ann")?)).await?)
    }

    async fn wait(&self, id: OperationId) -> Outcome<Operation> {
        let done = self.engine.wait_done(id).await?;
        self.show(&done)?;
        Ok(done)
    }

    async fn create_subnet(&self, network: &ResourceId, name: &str, block: &str) -> Outcome<Operation> {
        let block = Cidr::try_from(block.to_owned())?;
        self.call::<CreateSubnet>(NewSubnet { network: network.clone(), name: name.to_owned(), block }).await
    }
}

async fn start(store: &Arc<dyn Store>, fabric: &Fabric) -> Outcome<Engine> {
    // Taking the store over, it goes on with what is unfinished.
    Ok(register(Engine::builder_shared(Arc::clone(store)), fabric).start().await?)
}

#[cfg(feature = "sled")]
fn open(folder: &tempfile::TempDir) -> Outcome<Arc<dyn Store>> {
    use longrun::sled::{SledKv, SledOptions};
    Ok(Arc::new(longrun::KvStore::open(SledKv::open(folder.path(), SledOptions::default())?)?))
}

#[cfg(not(feature = "sled"))]
fn open(_: &tempfile::TempDir) -> Outcome<Arc<dyn Store>> {
    Ok(Arc::new(longrun::KvStore::memory()?))
}

#[allow(clippy::print_stdout, reason = "it is a program's output")]
pub(crate) fn print(text: &str) {
    println!("{text}");
}

pub(crate) async fn tell(print: &(dyn Fn(&str) + Sync)) -> Outcome {
    let folder = tempfile::tempdir()?;
    let (store, fabric) = (open(&folder)?, Fabric::default());
    let mut it = Teller { engine: start(&store, &fabric).await?, print };

    it.say("A network: the answer comes at once, with the id of what is being made");
    let new = NewNetwork { folder: ResourceId::new("home")?, name: "office".to_owned() };
    let accepted = it.call::<CreateNetwork>(new).await?;
    it.show(&accepted)?;
    let network = it.wait(accepted.id()).await?.metadata().decode::<Target>()?.id;

    it.say("Two subnets, in parallel");
    let (desks, guests) = tokio::try_join!(
        it.create_subnet(&network, "desks", "10.0.1.0/24"),
        it.create_subnet(&network, "guests", "10.0.2.0/24"),
    )?;
    let desks = it.wait(desks.id()).await?.metadata().decode::<Target>()?;
    let guests = it.wait(guests.id()).await?.metadata().decode::<Target>()?;

    it.say("Refused: a network that has subnets, a block that is taken");
    it.list(it.call::<DeleteNetwork>(Target { id: network.clone() }).await.err());
    it.list(it.create_subnet(&network, "more desks", "10.0.0.0/16").await.err());

    it.say("The fabric cannot route: the operation fails, and gives its VLAN back");
    let mut lost = false;
    fabric.state().mood = Some(Box::new(move |call| match call {
        "route" => Mood::Refuses,
        // Run again, the step gets the VLAN that it has already.
        "allocate" if !std::mem::replace(&mut lost, true) => Mood::LosesTheAnswer,
        _ => Mood::Well,
    }));
    let failing = it.create_subnet(&network, "printers", "10.0.3.0/24").await?;
    it.wait(failing.id()).await?;
    fabric.state().mood = None;
    it.list([&fabric.state().numbers]);

    it.say("Cancelled: done only when all is undone");
    let cancelled = it.create_subnet(&network, "printers", "10.0.3.0/24").await?;
    it.engine.cancel(cancelled.id(), &Caller::new("ann")?).await?;
    it.wait(cancelled.id()).await?;

    it.say("The process dies in the middle of a create, and the next one goes on");
    let printers = it.create_subnet(&network, "printers", "10.0.3.0/24").await?;
    tokio::time::sleep(Duration::from_millis(75)).await; // it has its VLAN, and is being routed
    drop(it.engine);
    it.engine = start(&store, &fabric).await?;
    let printers = it.wait(printers.id()).await?.metadata().decode::<Target>()?;

    it.say("A new name: nothing to do outside, so it is done when it is accepted");
    let rename = Rename { id: guests.id.clone(), name: "visitors".to_owned() };
    it.show(&it.call::<UpdateSubnet>(rename).await?)?;

    it.say("The subnets of the network, by name");
    let subnets = ResourceList::of(network.clone()).order(longrun::ResourceOrder::Name);
    let page = it.engine.list_resources::<Subnet>(&subnets, &PageRequest::default()).await?;
    it.list(page.items.iter().map(|found| (found.row.status, &found.body)));

    it.say("Everything is deleted");
    for subnet in [&desks, &guests, &printers] {
        it.wait(it.call::<DeleteSubnet>(subnet.clone()).await?.id()).await?;
    }
    it.wait(it.call::<DeleteNetwork>(Target { id: network.clone() }).await?.id()).await?;
    it.list([it.engine.resource::<Network>(&network).await?]);

    it.say("The operations of a subnet outlive it; newest first");
    let of_guests = OperationQuery::OfResource(Subnet::key(&guests.id)?);
    let page = it.engine.list_operations(&of_guests, &PageRequest::default()).await?;
    it.list(page.items.iter().map(|operation| (operation.kind().as_str(), operation.id(), operation.done())));
    assert!(fabric.state().numbers.is_empty() && fabric.state().routes.is_empty(), "nothing is left outside");
    Ok(())
}

#[cfg(test)]
mod tests {
    #[tokio::test]
    async fn the_story_ends_well() {
        super::tell(&|_| ()).await.unwrap();
    }
}
