"""The trio program around one `Peer`: feeds it events, carries its effects out against the ports, keeps its journal."""

from learnae.node.runtime import Node, NodeParts

__all__ = ["Node", "NodeParts"]
