"""What a peer is offered, beyond what associations of real peers show."""

from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian, ImplicitVRLittleEndian, MRImageStorage
from pynetdicom import build_context
from pynetdicom.pdu import A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import A_ASSOCIATE

from gpnet_node.config import PeerConfig
from gpnet_node.dimse.contexts import supported_contexts
from gpnet_node.dimse.incoming import association_request

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


def test_a_request_that_comes_again_is_read_afresh_from_what_was_decoded() -> None:
    asked = A_ASSOCIATE()
    asked.calling_ae_title, asked.called_ae_title = "SCANNER", "GPNET"
    asked.application_context_name = UID("1.2.840.10008.3.1.1.1")
    asked.presentation_context_definition_list = [build_context(MRImageStorage, ExplicitVRLittleEndian)]
    asked.presentation_context_definition_list[0].context_id = 1
    sent = A_ASSOCIATE_RQ()
    sent.from_primitive(asked)

    first, second = (association_request(sent.encode()) for _ in range(2))
    (used,) = first.to_primitive().presentation_context_definition_list
    used.add_transfer_syntax(ImplicitVRLittleEndian)
    used.result = 0x01

    (context,) = second.to_primitive().presentation_context_definition_list
    assert second is first
    assert context.abstract_syntax == MRImageStorage
    assert (context.transfer_syntax, context.result) == ([ExplicitVRLittleEndian], None)
    sent.calling_ae_title = "ANOTHER"
    assert association_request(sent.encode()).calling_ae_title == "ANOTHER"
