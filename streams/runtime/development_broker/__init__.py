"""DPME's development broker: one process, one node, loopback only; enough of the Kafka protocol for aiokafka and Faust.

It exists so that newcomers need no Java. Nothing in DPME depends on it alone: what is tested on it is tested on Apache
Kafka too.
"""
