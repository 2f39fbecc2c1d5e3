"""The method tables: what is not listed is treated with the most care, and what is denied stays denied."""

from __future__ import annotations

import json
from collections import Counter
from importlib.resources import files
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialect.tables import LONGEST_NAME, MethodTable, method_table
from gateway.model import Family, RequestClass

TABLES = ("evm", "solana", "bitcoin", "generic")


def words(text: str) -> list[str]:
    return text.split()


EXECUTION_API = words("""
eth_accounts eth_baseFee eth_blobBaseFee eth_blockNumber eth_call eth_capabilities eth_chainId eth_coinbase
eth_config eth_createAccessList eth_estimateGas eth_feeHistory eth_fillTransaction eth_gasPrice eth_getBalance
eth_getBlockAccessList eth_getBlockByHash eth_getBlockByNumber eth_getBlockReceipts
eth_getBlockTransactionCountByHash eth_getBlockTransactionCountByNumber eth_getCode eth_getFilterChanges
eth_getFilterLogs eth_getHeaderByHash eth_getHeaderByNumber eth_getLogs eth_getProof eth_getStorageAt
eth_getStorageValues eth_getTransactionByBlockHashAndIndex eth_getTransactionByBlockNumberAndIndex
eth_getTransactionByHash eth_getTransactionCount eth_getTransactionReceipt eth_getUncleByBlockHashAndIndex
eth_getUncleByBlockNumberAndIndex eth_getUncleCountByBlockHash eth_getUncleCountByBlockNumber eth_getWork
eth_hashrate eth_maxPriorityFeePerGas eth_mining eth_newBlockFilter eth_newFilter eth_newPendingTransactionFilter
eth_protocolVersion eth_sendRawTransaction eth_sendRawTransactionSync eth_sendTransaction eth_sign
eth_signTransaction eth_simulateV1 eth_submitHashrate eth_submitWork eth_subscribe eth_syncing eth_uninstallFilter
eth_unsubscribe net_listening net_peerCount net_version web3_clientVersion web3_sha3 debug_executionWitness
debug_getBadBlocks debug_getRawBlock debug_getRawHeader debug_getRawReceipts debug_getRawTransaction debug_setHead
debug_traceBlock debug_traceBlockByHash debug_traceBlockByNumber debug_traceCall debug_traceTransaction
""")

SIGNING = words("""
eth_sign eth_signTransaction eth_sendTransaction eth_signTypedData eth_signTypedData_v3 eth_signTypedData_v4
eth_fillTransaction eth_resend personal_sign personal_unlockAccount personal_sendTransaction wallet_sendCalls
account_signData eth_signUserOperation
""")

OPERATOR = words("""
admin_addPeer admin_nodeInfo admin_startHTTP engine_newPayloadV4 engine_forkchoiceUpdatedV3 miner_start
miner_setEtherbase txpool_content clique_propose debug_setHead debug_chaindbCompact debug_freeOSMemory
debug_startCPUProfile debug_writeMemProfile debug_verbosity debug_resetHead debug_deleteChainSlice
debug_insertReceipts debug_migrateReceipts debug_resyncWorldState anvil_setBalance hardhat_reset evm_mine
evm_snapshot tenderly_setBalance parity_setMode priv_call perm_reloadPermissionsFromFile eea_sendRawTransaction
plugins_reloadPluginConfig testing_buildBlockV1 debug_traceBlockFromFile eth_submitWork eth_submitHashrate
""")

GENERIC_DENIED = words("""
sendtoaddress dumpprivkey importprivkey walletpassphrase signmessage sign wallet_propose author_rotateKeys
stop addnode setban invalidateblock dial_peers unsafe_flush_mempool system_addReservedPeer offchain_localStorageSet
admin_reload debug_stop
""")

BROADCASTS = {
    "solana": {"sendTransaction"},
    "bitcoin": {"sendrawtransaction"},
    "evm": {
        "eth_sendRawTransaction",
        "eth_sendRawTransactionSync",
        "eth_sendRawTransactionConditional",
        "linea_sendRawTransaction",
    },
    "generic": {
        "sendTransaction",
        "sendrawtransaction",
        "broadcast_tx_sync",
        "broadcast_tx_async",
        "broadcast_tx_commit",
        "starknet_addInvokeTransaction",
        "starknet_addDeclareTransaction",
        "starknet_addDeployAccountTransaction",
        "send_tx",
        "sui_executeTransactionBlock",
        "author_submitExtrinsic",
    },
}
PRIVATE_BROADCASTS = {
    "evm": {"eth_sendPrivateTransaction", "eth_sendPrivateRawTransaction", "eth_sendBundle", "mev_sendBundle"},
    "solana": set(),
    "bitcoin": set(),
    "generic": set(),
}


def groups(table: str) -> list[dict[str, Any]]:
    text = files("gateway.dialect").joinpath("methods", f"{table}.json").read_text("utf-8")
    listed: list[dict[str, Any]] = json.loads(text)["groups"]
    return listed


# --- what is not listed ------------------------------------------------------------------------------


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize(
    "name", ["no_suchMethod", "", " ", "eth_", "\x00", "eth_blocknumber", "☃", "\ud800", "e" * 100]
)
def test_an_unknown_method_gets_the_strictest_class(table: str, name: str) -> None:
    method = method_table(table).get(name)
    assert (method.request_class, method.family) == (RequestClass.UNKNOWN, Family.OTHER)
    assert (method.known, method.label) == (False, "other")
    assert method.block_param == -1


def test_the_strictest_class_is_never_repeated_and_reaches_one_endpoint() -> None:
    strictest = RequestClass.UNKNOWN
    assert not strictest.repeatable and strictest.max_endpoints == 1 and strictest.write and not strictest.last_resort


@pytest.mark.parametrize("table", TABLES)
def test_names_from_callers_are_not_stored(table: str) -> None:
    methods = method_table(table)
    before, listed = len(methods), set(vars(methods))
    for number in range(10_000):
        assert not methods.get(f"caller_invents{number}").known
    assert len(methods) == before == len(list(methods))
    assert set(vars(methods)) == listed
    assert methods.get("caller_invents1") is not methods.get("caller_invents1")


@given(st.text(max_size=200), st.sampled_from(TABLES))
def test_any_name_at_all_is_looked_up_and_only_a_listed_one_may_be_repeated(name: str, table: str) -> None:
    method = method_table(table).get(name)
    assert method.name == name
    assert json.loads(method.wire) == name
    assert method.known or not method.request_class.repeatable


@pytest.mark.parametrize("table", TABLES)
def test_a_name_longer_than_any_method_is_denied_unread(table: str) -> None:
    assert max(len(method.name) for method in method_table(table)) * 2 < LONGEST_NAME
    for name in ("x" * (LONGEST_NAME + 1), "a" + "\u0315\u0327" * 100_000, "eth_sign" + "\u200b" * 1_000_000):
        method = method_table(table).get(name)
        assert method.denied and not method.known and method.request_class is RequestClass.UNKNOWN


# --- denials -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SIGNING)
def test_methods_that_sign_are_denied(name: str) -> None:
    method = method_table("evm").get(name)
    assert method.denied and method.request_class is RequestClass.SIGNING


@pytest.mark.parametrize("name", OPERATOR)
def test_methods_of_operators_are_denied(name: str) -> None:
    method = method_table("evm").get(name)
    assert method.denied and method.request_class is RequestClass.OPERATOR


@pytest.mark.parametrize("name", GENERIC_DENIED)
def test_methods_that_sign_or_operate_other_nodes_are_denied(name: str) -> None:
    method = method_table("generic").get(name)
    assert method.denied and method.request_class in (RequestClass.SIGNING, RequestClass.OPERATOR)


def wide(name: str) -> str:
    return "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in name)


@pytest.mark.parametrize("name", [*SIGNING, *OPERATOR])
@pytest.mark.parametrize(
    "spelling",
    [
        str.upper,
        str.title,
        str.swapcase,
        wide,
        lambda name: f" {name}",
        lambda name: f"{name}\n",
        lambda name: name.replace("_", "_ "),
        "\t".join,
        lambda name: name.replace("_", "_\u200b"),
        lambda name: f"\ufeff{name}\x00",
        lambda name: name.replace("s", "\u017f"),  # the long s is an s to whoever folds
        lambda name: name.replace("i", "\u0130"),  # the capital i with a dot decomposes into an i and the dot
        lambda name: name.replace("a", "\u00e1").replace("e", "e\u0301"),
        lambda name: name.replace("g", "\U0001d420"),  # mathematical bold
        lambda name: name + "\u00ad",
    ],
)
def test_a_denial_holds_for_every_spelling(name: str, spelling: Any) -> None:
    assert method_table("evm").get(spelling(name)).denied, ascii(spelling(name))


@pytest.mark.parametrize("table", TABLES)
def test_a_denied_prefix_denies_all_that_begins_with_it(table: str) -> None:
    for group in groups(table):
        for name in group["methods"]:
            if name.endswith("*"):
                for tail in ("x", "X9", "", "\u200bx", "_deep_er"):
                    assert method_table(table).get(name[:-1] + tail).denied, name
                    assert method_table(table).get((name[:-1] + tail).upper()).denied, name


@pytest.mark.parametrize("table", TABLES)
def test_no_spelling_of_a_listed_method_is_denied_by_a_prefix_meant_for_others(table: str) -> None:
    for method in method_table(table):
        assert method_table(table).get(method.name) is method


@given(st.sampled_from([*SIGNING, *OPERATOR]), st.data())
def test_a_denial_holds_however_case_and_blanks_are_scattered(name: str, data: st.DataObject) -> None:
    filler = st.sampled_from(["", "", " ", "\t", "\u200b", "\u00a0", "-"])
    spelled = "".join(data.draw(filler) + (c.upper() if data.draw(st.booleans()) else c) for c in name)
    assert method_table("evm").get(spelled).denied


# --- what is listed ----------------------------------------------------------------------------------


@pytest.mark.parametrize("table", TABLES)
def test_every_method_has_a_class_a_family_and_a_cost(table: str) -> None:
    for method in method_table(table):
        assert isinstance(method.request_class, RequestClass) and isinstance(method.family, Family)
        assert method.known and method.label == method.name and method.cost >= 1
        assert json.loads(method.wire) == method.name
        assert -1 <= method.block_param <= 2


@pytest.mark.parametrize("table", TABLES)
def test_no_method_is_in_two_groups(table: str) -> None:
    times = Counter(name for group in groups(table) for name in group["methods"])
    assert [name for name, count in times.items() if count > 1] == []


@pytest.mark.parametrize("table", TABLES)
def test_the_data_names_nothing_the_table_does_not_read(table: str) -> None:
    for group in groups(table):
        assert group.keys() <= {"class", "family", "denied", "methods"}
        for name, facts in group["methods"].items():
            assert facts.keys() <= {"block", "cost", "hash", "examined"}, name


def test_a_table_that_contradicts_itself_is_refused() -> None:
    reads = {"class": "head_read", "family": "head", "methods": {"a_b": {}}}
    with pytest.raises(ValueError, match="listed twice"):
        MethodTable([reads, {**reads, "class": "broadcast"}])
    with pytest.raises(ValueError, match="does not deny"):
        MethodTable([{**reads, "methods": {"a_*": {}}}])


def test_every_method_of_the_execution_api_is_listed_or_denied() -> None:
    methods = method_table("evm")
    assert [name for name in EXECUTION_API if not (methods.get(name).known or methods.get(name).denied)] == []


@pytest.mark.parametrize("table", TABLES)
def test_broadcasts_are_exactly_these(table: str) -> None:
    methods = list(method_table(table))
    assert {m.name for m in methods if m.request_class is RequestClass.BROADCAST} == BROADCASTS[table]
    assert {m.name for m in methods if m.request_class is RequestClass.PRIVATE_BROADCAST} == PRIVATE_BROADCASTS[table]


@pytest.mark.parametrize("table", TABLES)
def test_what_sends_is_in_the_family_of_sends_and_nothing_else_that_may_be_repeated_is(table: str) -> None:
    for method in method_table(table):
        if method.request_class in (RequestClass.BROADCAST, RequestClass.PRIVATE_BROADCAST):
            assert method.family is Family.SEND
        elif method.family is Family.SEND:
            assert not method.request_class.repeatable, method.name


@pytest.mark.parametrize("table", TABLES)
def test_what_is_denied_signs_or_operates_and_what_signs_or_operates_is_denied(table: str) -> None:
    for method in method_table(table):
        acts = method.request_class in (RequestClass.SIGNING, RequestClass.OPERATOR)
        assert method.denied == acts == (method.family is Family.ADMIN), method.name


@pytest.mark.parametrize("table", TABLES)
def test_a_repeatable_method_never_says_that_it_changes_something(table: str) -> None:
    suspicious = ("set", "add", "remove", "import", "submit", "cancel", "unlock", "start", "stop", "delete", "write")
    for method in method_table(table):
        if method.request_class.repeatable and not method.request_class.looked_up:
            verb = method.name.rpartition("_")[2].lower()
            assert not verb.startswith(suspicious), method.name


def test_names_that_tell_what_they_are_have_the_family_that_they_tell() -> None:
    for method in method_table("evm"):
        if method.name.startswith(("trace_", "arbtrace_", "debug_trace")):
            assert (method.family, method.request_class) == (Family.TRACE, RequestClass.HEAVY_READ)
        if "Filter" in method.name and method.name.startswith("eth_"):
            assert (method.family, method.request_class) == (Family.FILTER, RequestClass.STATEFUL)
        if method.name.endswith(("ByHash", "ByBlockHash")) and method.family is Family.BLOCK:
            assert method.request_class is RequestClass.PINNED_READ, method.name
        if method.name.endswith("ByNumber") and method.family is Family.BLOCK:
            assert method.block_param == 0, method.name
