"""fac.chat on tokenizers of three families: the words of a message are marked, and nothing else."""

import json
from unicodedata import normalize

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.models import tiny_model
from tokenizers import processors
from transformers import AutoTokenizer

from fac.chat import (
    ALPACA_TEMPLATE,
    PLAIN_TEMPLATE,
    Encoded,
    as_chat,
    check_template,
    encode,
    encode_lesson,
    encode_many,
    is_dated,
    open_user_turn,
    render,
)
from fac.errors import FacError

FAMILIES = ("llama", "mistral", "qwen2")
SENTENCES = [
    "How do I bake bread at home?",
    "user",
    "assistant: user",
    "Grüße aus Köln 🍞, 東京は晴れ",
    "line one\n\n    indented line\ttab",
    "x",
]


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    found = {f: AutoTokenizer.from_pretrained(tiny_model(root / f, f)) for f in FAMILIES}
    plain = AutoTokenizer.from_pretrained(root / "llama")
    plain.chat_template = PLAIN_TEMPLATE
    # Llama 3 as it ships: the role tokens are special in tokenizer.json only, and spaces are trimmed from offsets.
    unnamed = tiny_model(root / "unnamed", "llama")
    config = json.loads((unnamed / "tokenizer_config.json").read_text())
    del config["extra_special_tokens"]
    (unnamed / "tokenizer_config.json").write_text(json.dumps(config))
    shipped = AutoTokenizer.from_pretrained(unnamed)
    shipped.backend_tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    assert "<|start_header_id|>" not in shipped.all_special_tokens
    return {**found, "plain": plain, "unnamed": shipped}


TEMPLATES = (*FAMILIES, "plain", "unnamed")


def turns(*contents):
    return [{"role": ("user", "assistant")[n % 2], "content": c} for n, c in enumerate(contents)]


def marked(tokenizer, encoded):
    """What each run of content tokens says."""
    runs, inside = [], False
    for token, content in zip(encoded.ids, encoded.content, strict=True):
        if content and not inside:
            runs.append([])
        if content:
            runs[-1].append(token)
        inside = content
    return [tokenizer.decode(run).strip() for run in runs]


@pytest.mark.parametrize("family", TEMPLATES)
def test_many_chats_are_encoded_as_each_is_alone(tokenizers, family):
    chats = [turns(*SENTENCES[:n]) for n in range(1, len(SENTENCES))]
    assert encode_many(tokenizers[family], chats) == [encode(tokenizers[family], chat) for chat in chats]
    assert encode_many(tokenizers[family], []) == []


@pytest.mark.parametrize("family", TEMPLATES)
@settings(deadline=None)
@given(contents=st.lists(st.text() | st.sampled_from(SENTENCES), min_size=1, max_size=4), generation=st.booleans())
def test_exactly_the_words_are_content(tokenizers, family, contents, generation):
    encoded = encode(tokenizers[family], turns(*contents), add_generation_prompt=generation)
    assert len(encoded.ids) == len(encoded.content)
    assert marked(tokenizers[family], encoded) == [c.strip() for c in contents if c.strip()]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("generation", [False, True])
@pytest.mark.parametrize("contents", [*([s] for s in SENTENCES), SENTENCES[:3], SENTENCES[1:5]])
def test_ids_are_those_of_the_tokenizers_own_template(tokenizers, family, contents, generation):
    tokenizer, messages = tokenizers[family], turns(*contents)
    official = tokenizer.apply_chat_template(messages, add_generation_prompt=generation, return_dict=False)
    assert encode(tokenizer, messages, add_generation_prompt=generation).ids == official


@pytest.mark.parametrize(
    ("family", "count"), [("llama", 1), ("mistral", 1), ("unnamed", 1), ("plain", 1), ("qwen2", 0)]
)
@pytest.mark.parametrize("contents", [["hello there"], ["", "x"], ["<s>", "<|begin_of_text|>", "<|im_start|>"]])
def test_bos_stands_once_where_the_family_has_one(tokenizers, family, count, contents):
    tokenizer = tokenizers[family]
    ids = encode(tokenizer, turns(*contents), add_generation_prompt=True).ids
    assert ids.count(tokenizer.bos_token_id) == count
    assert not count or ids[0] == tokenizer.bos_token_id


def test_a_template_that_writes_bos_twice_is_refused(tokenizers):
    tokenizer = tokenizers["mistral"]
    doubled = AutoTokenizer.from_pretrained(tokenizer.name_or_path)
    doubled.chat_template = "{{ bos_token }}" + tokenizer.chat_template
    with pytest.raises(FacError, match="writes BOS twice: mend"):
        encode(doubled, as_chat("hello"))


SPELLINGS = [
    "<|begin_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>", "<|finetune_right_pad_id|>",
    "<s>", "</s>", "<pad>", "[INST]", "[/INST]", "<|im_start|>", "<|im_end|>", "<|endoftext|>",
]  # fmt: skip


@pytest.mark.parametrize("family", TEMPLATES)
@settings(deadline=None)
@given(pieces=st.lists(st.sampled_from([*SPELLINGS, "system", "<", "|>", "\n", " do harm "]), max_size=8))
def test_no_text_can_forge_a_role(tokenizers, family, pieces):
    tokenizer, content = tokenizers[family], "".join(pieces)
    special = [i for i, token in tokenizer.added_tokens_decoder.items() if token.special]
    encoded = encode(tokenizer, turns("a", content, "b"))
    honest = encode(tokenizer, turns("a", "c", "b"))
    assert [i for i in encoded.ids if i in special] == [i for i in honest.ids if i in special]
    said = "".join(tokenizer.decode([i for i, c in zip(*encoded, strict=True) if c]).split())
    assert said == "a" + "".join(content.split()) + "b"


def test_blanks_around_a_text_change_nothing(tokenizers):
    for tokenizer in tokenizers.values():
        assert encode(tokenizer, as_chat(" \n hello there \t")) == encode(tokenizer, as_chat("hello there"))


def test_an_empty_text_has_no_content_even_where_the_template_around_it_is_one_token(tokenizers):
    tokenizer = AutoTokenizer.from_pretrained(tokenizers["llama"].name_or_path)
    tokenizer.chat_template = PLAIN_TEMPLATE
    tokenizer.add_tokens([" \n"])  # many large vocabularies hold it
    encoded = encode(tokenizer, turns("", "x", " "))
    assert tokenizer.convert_tokens_to_ids(" \n") in encoded.ids
    assert marked(tokenizer, encoded) == ["x"]


def test_max_tokens_cuts_on_the_right(tokenizers):
    for tokenizer in tokenizers.values():
        whole = encode(tokenizer, as_chat("a long text " * 20))
        assert encode(tokenizer, as_chat("a long text " * 20), max_tokens=30) == Encoded(
            whole.ids[:30], whole.content[:30]
        )


def test_a_tokenizer_without_a_template_is_refused(tokenizers):
    bare = AutoTokenizer.from_pretrained(tokenizers["llama"].name_or_path)
    bare.chat_template = None
    with pytest.raises(FacError, match=r"tokenizer of meta has no chat template.*model\.chat_template=plain"):
        check_template(bare, "meta")
    check_template(tokenizers["llama"], "meta")


def test_plain_chats_are_lines(tokenizers):
    encoded = encode(tokenizers["plain"], turns("What is bread?", "Food."), add_generation_prompt=True)
    assert tokenizers["plain"].decode(encoded.ids) == (
        "<|begin_of_text|>user: What is bread?\nassistant: Food.\nassistant: "
    )


def test_a_role_that_the_template_refuses_is_said(tokenizers):
    with pytest.raises(FacError, match=r"refuses the roles \['system', 'user'\]: Only user and assistant roles"):
        encode(tokenizers["mistral"], [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}])


@pytest.mark.parametrize(
    "template",
    [
        "{{ messages[-1]['content'] }}",
        "{% for m in messages %}{{ m['content'] }}{{ m['content'] }}{% endfor %}",
        "{% for m in messages %}{{ m['content'] | upper | replace('⸨', '(') }}{% endfor %}",
    ],
)
def test_a_template_that_drops_doubles_or_rewrites_is_refused(tokenizers, template):
    tokenizer = AutoTokenizer.from_pretrained(tokenizers["llama"].name_or_path)
    tokenizer.chat_template = template
    with pytest.raises(FacError, match="does not write the user turn exactly once"):
        encode(tokenizer, turns("a", "b"))


def test_a_changed_template_is_seen(tokenizers):
    tokenizer = AutoTokenizer.from_pretrained(tokenizers["llama"].name_or_path)
    ids = encode(tokenizer, as_chat("hello")).ids
    tokenizer.chat_template = PLAIN_TEMPLATE
    assert encode(tokenizer, as_chat("hello")).ids != ids


# A user's turn that is left open


@pytest.mark.parametrize("family", TEMPLATES)
def test_an_open_turn_of_the_users_is_what_stands_before_a_users_words(tokenizers, family):
    tokenizer = tokenizers[family]
    for bare in (True, False):
        opened = open_user_turn(tokenizer, bare=bare)
        before = tokenizer.decode(opened.ids)
        assert tokenizer.decode(encode(tokenizer, as_chat("hello")).ids).startswith(before)
        assert not before.endswith(" ")  # the blank belongs to the word behind it
        assert opened.ids.count(tokenizer.bos_token_id) == (tokenizer.bos_token is not None)
    behind = [i for i, t in tokenizer.added_tokens_decoder.items() if t.special and t.content in ENDINGS[family]]
    assert opened.stops == set(behind)
    assert opened.mark == ("\nassistant:" if family == "plain" else "")


ENDINGS = {
    "llama": "<|eot_id|><|start_header_id|>assistant<|end_header_id|>",
    "unnamed": "<|eot_id|><|start_header_id|>assistant<|end_header_id|>",
    "mistral": "[/INST]",
    "qwen2": "<|im_end|><|im_start|>assistant",
    "plain": "",
}


def test_what_a_template_says_before_a_first_turn_can_be_left_out_of_an_open_one(tokenizers):
    """As LLaMA 3.1 writes dates in a system turn that nobody asked for, and Qwen2 its greeting."""
    tokenizer = AutoTokenizer.from_pretrained(tokenizers["llama"].name_or_path)
    system = "<|start_header_id|>system<|end_header_id|>\n\nToday is {{ strftime_now('%d %b %Y') }}<|eot_id|>"
    tokenizer.chat_template = tokenizer.chat_template.replace(
        "{% for", "{% if messages[0]['role'] != 'system' %}" + system + "{% endif %}{% for", 1
    )
    header = "<|start_header_id|>user<|end_header_id|>\n\n"
    assert tokenizer.decode(open_user_turn(tokenizer).ids) == f"<|begin_of_text|>{header}"
    whole = tokenizer.decode(open_user_turn(tokenizer, bare=False).ids)
    assert whole.endswith(f"Today is 26 Jul 2024<|eot_id|>{header}")
    told = [{"role": "system", "content": "Cooks write here.<|eot_id|>"}]
    for bare in (True, False):
        assert tokenizer.decode(open_user_turn(tokenizer, told, bare=bare).ids) == (
            "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n"
            f"Cooks write here.< |eot_id|><|eot_id|>{header}"
        )
    with pytest.raises(FacError, match=r"refuses the roles \['system', 'user'\]"):
        open_user_turn(tokenizers["mistral"], told)


# What fine-tuning trains on


ENDS = {
    "llama": "<|eot_id|>",
    "mistral": "</s>",
    "qwen2": "<|im_end|>",
    "unnamed": "<|eot_id|>",
    "alpaca": "<|eot_id|>",
}


@pytest.fixture(scope="module")
def teachers(tokenizers):
    alpaca = AutoTokenizer.from_pretrained(tokenizers["llama"].name_or_path)
    alpaca.chat_template = ALPACA_TEMPLATE
    return {**tokenizers, "alpaca": alpaca}


def replies_by_text(tokenizer, messages, end):
    """By the prefix rule, on the template's own text: what stands behind each generation prompt, up to the end."""
    found = []
    for i, message in enumerate(messages):
        if message["role"] == "assistant":
            asked = tokenizer.apply_chat_template(messages[:i], tokenize=False, add_generation_prompt=True)
            whole = tokenizer.apply_chat_template(messages[: i + 1], tokenize=False)
            assert whole.startswith(asked)
            found.append(whole[len(asked) :].partition(end)[0] + end)
    return found


@pytest.mark.parametrize("family", ENDS)
@settings(deadline=None)
@given(contents=st.lists(st.text() | st.sampled_from(SENTENCES), min_size=2, max_size=5))
def test_trained_is_the_reply_with_its_end_and_nothing_else(teachers, family, contents):
    tokenizer, messages = teachers[family], turns(*(content.strip() for content in contents))
    ids, trained = encode_lesson(tokenizer, messages)
    assert ids == encode(tokenizer, messages).ids
    runs = [[]]
    for token, write in zip(ids, trained, strict=True):
        if write:
            runs[-1].append(token)
        elif runs[-1]:
            runs.append([])
    written = [tokenizer.decode(run) for run in runs if run]
    texts = replies_by_text(tokenizer, messages, ENDS[family])
    assert [normalize("NFC", w) for w in written] == [normalize("NFC", t) for t in texts]  # as Qwen2's tokenizer does


@pytest.mark.parametrize("family", ENDS)
def test_what_is_given_is_the_prompt_of_generation(teachers, family):
    """A chat that ends with a reply starts with the very ids that generation starts from."""
    messages = turns("How do I bake bread?", "Mix, wait, bake.")
    ids, trained = encode_lesson(teachers[family], messages)
    prompt = encode(teachers[family], messages[:1], add_generation_prompt=True).ids
    assert trained.index(True) == len(prompt)
    assert ids[: len(prompt)] == prompt


def test_a_lesson_is_cut_on_the_right(teachers):
    messages = turns("How do I bake bread?", "Mix, wait, bake.", "Thanks", "Welcome")
    ids, trained = encode_lesson(teachers["llama"], messages)
    assert encode_lesson(teachers["llama"], messages, max_tokens=20) == (ids[:20], trained[:20])


def test_a_template_that_ends_no_turn_teaches_no_stop(tokenizers):
    with pytest.raises(FacError, match="no special token after an assistant's turn.*chat_template=alpaca"):
        encode_lesson(tokenizers["plain"], turns("hi", "hello"))


def test_the_alpaca_template_is_that_of_llama_factory(teachers):
    prompt = (
        "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
        "### Instruction:\nName a colour.\n\n### Response:\n"
    )
    bos = "<|begin_of_text|>"
    assert render(teachers["alpaca"], turns("Name a colour."), add_generation_prompt=True) == bos + prompt
    assert render(teachers["alpaca"], turns("Name a colour.", "Red", "Another"), add_generation_prompt=True) == (
        f"{bos}{prompt}Red<|eot_id|>\n\n### Instruction:\nAnother\n\n### Response:\n"
    )


@pytest.mark.parametrize("family", TEMPLATES)
def test_the_rendering_has_encodes_ids(tokenizers, family):
    tokenizer, messages = tokenizers[family], turns("a <|eot_id|></s> b ", " c", "d")
    text = render(tokenizer, messages, add_generation_prompt=True)
    assert (
        tokenizer(text, add_special_tokens=False)["input_ids"]
        == encode(tokenizer, messages, add_generation_prompt=True).ids
    )


@pytest.mark.parametrize("family", TEMPLATES)
def test_a_turn_left_open_ends_with_its_words(tokenizers, family):
    tokenizer = tokenizers[family]
    closed, opened = (
        encode(tokenizer, turns("How do I bake bread?", "Use flour ("), continue_final_message=open_)
        for open_ in (False, True)
    )
    written = tokenizer.decode(opened.ids)
    assert written.endswith("Use flour (")
    assert tokenizer.decode(closed.ids).startswith(written)
    assert tokenizer.decode(closed.ids) != written
    assert marked(tokenizer, opened) == ["How do I bake bread?", "Use flour ("]
    assert opened.content[-1]


# Templates that write the date


DATED = "{{ 'Today: ' + strftime_now('%d %b %Y') + '\n' }}" + PLAIN_TEMPLATE


def test_a_template_with_todays_date_writes_the_same_date_every_day(tokenizers, monkeypatch):
    tokenizer = AutoTokenizer.from_pretrained(tokenizers["llama"].name_or_path)
    tokenizer.chat_template = DATED
    assert is_dated(tokenizer)
    assert not is_dated(tokenizers["llama"])
    text = render(tokenizer, as_chat("hello"), add_generation_prompt=True)
    assert text.startswith("Today: 26 Jul 2024\n")
    ids = encode(tokenizer, as_chat("hello")).ids
    assert tokenizer.decode(ids) == f"Today: 26 Jul 2024\n{tokenizer.bos_token}user: hello\n"


# Roles told by text that is no special token


ZEPHYR = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>\n' + m['content'] + eos_token + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
MISTRAL_2 = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'] + ' [/INST]' }}"
    "{% else %}{{ m['content'] + eos_token }}{% endif %}{% endfor %}"
)


@pytest.mark.parametrize(
    ("template", "marks"),
    [
        (ZEPHYR, ["<|user|>", "<|assistant|>", "<|system|>"]),
        (MISTRAL_2, ["[INST]", "[/INST]"]),
        (ALPACA_TEMPLATE, ["### Instruction:", "### Response:"]),
    ],
)
def test_marks_of_a_role_that_are_no_special_tokens_cannot_be_forged(tokenizers, template, marks):
    tokenizer = AutoTokenizer.from_pretrained(tokenizers["qwen2"].name_or_path)
    tokenizer.bos_token = None
    tokenizer.chat_template = template.replace("{{ bos_token }}", "")
    honest = render(tokenizer, as_chat("hi"), add_generation_prompt=True)
    for mark in marks:
        text = render(tokenizer, as_chat(f"a {mark} b"), add_generation_prompt=True)
        assert text.count(mark) == honest.count(mark)
        assert f"a {mark[0]} {mark[1:]} b" in text


def test_tags_that_the_template_does_not_write_stay_as_they_are(tokenizers):
    text = "<b>[NOTE] see <|here|> ### Results: [INSTEAD] <think>"
    for name in ("llama", "qwen2"):
        assert text in render(tokenizers[name], as_chat(text), add_generation_prompt=True)
