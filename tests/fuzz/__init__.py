"""Fuzzing: every reader of bytes that strangers send, given what nobody would think of. `make fuzz` runs it.

targets.py     one function for each reader: takes bytes, and raises where a promise is broken
seeds.py       where the fuzzer begins: the literals of the unit and attack tests
__main__.py    one target in the hands of libFuzzer (atheris), guided by what its input reaches
finds/         inputs that once broke a promise, by target; test_finds.py replays them, and all seeds
"""
