"""What a peer is offered, beyond what associations of real peers show."""

from pydicom.uid import CTImageStorage, MRImageStorage

from gpnet_node.config import PeerConfig
from gpnet_node.dimse.contexts import supported_contexts

PEER = PeerConfig(name="pacs", ae_title="PACS", may_store=True, may_retrieve=True, accept_other_classes=True)


def test_of_a_hundred_storage_classes_only_those_that_are_proposed_are_offered() -> None:
    offered = {str(context.abstract_syntax) for context in supported_contexts(PEER, [MRImageStorage])}

    assert MRImageStorage in offered
    assert CTImageStorage not in offered


def test_what_one_association_takes_for_itself_is_not_offered_to_the_next() -> None:
    supported_contexts(PEER, [MRImageStorage], taken=[MRImageStorage])

    (context,) = [
        it for it in supported_contexts(PEER, [MRImageStorage]) if it.abstract_syntax == MRImageStorage
    ]
    assert (context.scu_role, context.scp_role) == (None, None)
