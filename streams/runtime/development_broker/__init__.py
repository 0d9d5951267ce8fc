"""DPME's development broker: one process, one node, loopback only, enough of the Kafka protocol for aiokafka and Faust.

It exists so that a newcomer needs no Java. Nothing in DPME depends on it alone: every test of it runs on Apache Kafka too.
"""
