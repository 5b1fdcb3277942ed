"""The page in a real browser: search, walk, like, dislike, play, compare, and what goes wrong."""

from __future__ import annotations

import re
import shutil

import pytest

from mmrec.cli import main
from mmrec.engine import History, Query
from tests.conftest import jpeg_bytes

K, NEXT = 24, 12
ITEM, OTHER, THIRD, CLIP = "i05", "i09", "i14", "i07"
SIDES = {"width": 400, "height": 800}


def ids(page, where: str = "#view .card") -> list[str]:
    return page.eval_on_selector_all(where, "all => all.map(one => one.dataset.id)")


def hits(found) -> list[str]:
    return [hit.item_id for hit in found]


def ready(page) -> None:
    page.wait_for_selector('main[aria-busy="false"]', state="attached")


def wait_ids(page, expected: list[str], where: str = "#view .card") -> None:
    page.wait_for_function(
        "([where, expected]) => JSON.stringify([...document.querySelectorAll(where)].map(one => one.dataset.id)) "
        "=== JSON.stringify(expected)",
        arg=[where, expected],
    )


def message(page) -> str:
    page.wait_for_selector("#message:not([hidden])")
    return page.inner_text("#message")


def card(page, item: str):
    return page.locator(f'#view .card[data-id="{item}"]')


def like(page, item: str, opinion: str = "like") -> None:
    card(page, item).locator(f".opinion.{opinion}").click()


def choose(page, name: str, kind: str, data: bytes) -> None:
    page.set_input_files("#file", {"name": name, "mimeType": kind, "buffer": data})


def test_a_text_finds_what_the_engine_finds(address, open_page, engine):
    page = open_page(address)
    page.fill("#query", "a red thing")
    page.keyboard.press("Enter")
    wait_ids(page, hits(engine.search(Query(record={"text": "a red thing"}), K)))
    assert "“a red thing”" in page.inner_text("h1")
    assert page.evaluate("location.hash") == "#/search?q=a+red+thing"


def test_answers_follow_the_typing(address, open_page, engine):
    page = open_page(address)
    page.locator("#query").press_sequentially("blue", delay=20)
    wait_ids(page, hits(engine.search(Query(record={"text": "blue"}), K)))


def test_a_card_leads_to_its_neighbours_and_back_leads_back(address, open_page, engine):
    page = open_page(address, "#/search?q=green")
    found = ids(page)
    title = card(page, found[1]).locator(".title").inner_text()
    card(page, found[1]).locator(".title").click()
    wait_ids(page, hits(engine.search(Query(items=(found[1],)), K)))
    assert page.inner_text("h1") == title
    neighbour = ids(page)[0]
    card(page, neighbour).locator(".title").click()
    wait_ids(page, hits(engine.search(Query(items=(neighbour,)), K)))
    assert page.locator(".trail li").all_inner_texts()[:2] == ["“green”", title]
    page.go_back()
    wait_ids(page, hits(engine.search(Query(items=(found[1],)), K)))
    assert page.locator(".trail li").all_inner_texts() == ["“green”", title]
    page.go_back()
    wait_ids(page, found)


def test_likes_and_dislikes_steer_the_recommendations_at_once(address, open_page, engine):
    page = open_page(address)
    rail = "#rail .row"
    like(page, ITEM)
    wait_ids(page, hits(engine.recommend(History(items=(ITEM,)), NEXT)), rail)
    like(page, OTHER)
    wait_ids(page, hits(engine.recommend(History(items=(ITEM, OTHER)), NEXT)), rail)
    history = History(items=(ITEM, OTHER))
    reasons = [why[0] for why in engine.explain(history, engine.recommend(history, NEXT))]
    shown = page.locator(f"{rail} .attributes").all_inner_texts()
    assert [
        line for line, why in zip(shown, reasons, strict=True) if why.drop > 0 and line != f"after {why.title}"
    ] == []
    disliked = ids(page, rail)[0]
    page.locator(f'{rail}[data-id="{disliked}"] .opinion.dislike').click()
    steered = hits(engine.recommend(History(items=(ITEM, OTHER), disliked=(disliked,)), NEXT))
    wait_ids(page, steered, rail)
    assert disliked not in steered
    like(page, OTHER)  # taken back
    wait_ids(page, hits(engine.recommend(History(items=(ITEM,), disliked=(disliked,)), NEXT)), rail)
    page.reload()
    wait_ids(page, hits(engine.recommend(History(items=(ITEM,), disliked=(disliked,)), NEXT)), rail)
    page.click("text=Clear")
    wait_ids(page, [], rail)
    assert "Like a few items" in page.inner_text("#rail")


def test_nothing_left_is_said(address, open_page, world):
    page = open_page(address)
    everything = [f"i{n:02d}" for n in range(24)]
    page.evaluate(
        "([ids]) => fetch('/about').then(one => one.json()).then(about => sessionStorage.setItem("
        "'mmrec:' + about.model_hash, JSON.stringify({liked: ids.map(id => ({id, time: 0})), disliked: []})))",
        [everything],
    )
    page.reload()
    page.wait_for_selector("text=Nothing is left to recommend.")


def test_a_picture_is_searched_by_choosing_and_by_dropping_it(address, open_page, engine, world):
    picture = jpeg_bytes(5)
    expected = hits(engine.search(Query(record={"image": picture}), K))
    page = open_page(address)
    choose(page, "lamp.jpg", "image/jpeg", picture)
    wait_ids(page, expected)
    assert page.inner_text("#query-file") == "lamp.jpg"
    page.fill("#query", "red")
    wait_ids(page, hits(engine.search(Query(record={"image": picture, "text": "red"}), K)))
    page.click("#query-file button")
    wait_ids(page, hits(engine.search(Query(record={"text": "red"}), K)))
    page.goto(f"{address}/")
    ready(page)
    page.evaluate(
        """bytes => {
            const carried = new DataTransfer();
            carried.items.add(new File([new Uint8Array(bytes)], "dropped.jpg", {type: "image/jpeg"}));
            for (const kind of ["dragover", "drop"]) {
                const options = {dataTransfer: carried, bubbles: true, cancelable: true};
                document.body.dispatchEvent(new DragEvent(kind, options));
            }
        }""",
        list(picture),
    )
    wait_ids(page, expected)
    assert "“dropped.jpg”" in page.inner_text("h1")


@pytest.mark.parametrize(("modality", "item", "seconds"), [("video", CLIP, 1.5), ("audio", "i03", 0.5)])
def test_media_play_and_can_be_sought(address, open_page, modality, item, seconds):
    page = open_page(address)
    ranges = []
    page.on("response", lambda one: ranges.append(one.status) if "/media/" in one.url else None)
    name = {"video": "clip", "audio": "sound"}[modality]
    card(page, item).locator(f'.play[aria-label^="Play the {name}"]').click()
    page.wait_for_function(f"() => document.querySelector('.card {modality}')?.readyState >= 1")
    player = page.locator(f".card {modality}")
    assert player.evaluate("one => one.duration") == pytest.approx(seconds, abs=0.1)
    player.evaluate("one => { one.pause(); one.currentTime = one.duration / 2; }")
    page.wait_for_function(f"() => !document.querySelector('.card {modality}').seeking")
    assert player.evaluate("one => one.currentTime") == pytest.approx(seconds / 2, abs=0.1)
    assert set(ranges) == {206}
    page.click(".play-end")
    assert player.count() == 0


def test_an_item_shows_its_picture_text_clip_and_sound(address, open_page):
    page = open_page(address, f"#/item/{CLIP}")
    page.wait_for_function("() => document.querySelector('.hero img')?.naturalWidth > 0")
    assert "that hums at 360 hertz" in page.inner_text(".hero .text")
    assert page.inner_text(".hero dl") == "category\ngrey"
    page.click("text=Clip")
    page.wait_for_function("() => document.querySelector('.hero video')?.readyState >= 1")
    page.goto(f"{address}/#/item/i03")
    page.wait_for_function("() => document.querySelector('.hero audio')?.readyState >= 1")


def test_titles_are_text_and_never_markup(address, open_page):
    for hash_ in ("", "#/item/i00", "#/search?q=<img src=x onerror=1>", "#/compare?item=i00", "#/map?item=i00"):
        page = open_page(address, hash_)
        if "map" in hash_:
            page.wait_for_selector(".tip:not([hidden])")
        assert "<img src=x" in page.inner_text("main"), hash_
        assert page.locator('img[src="x"]').count() == 0
        assert page.evaluate("document.body.dataset.hacked") is None
    assert "<b>red</b>" in open_page(address, "#/item/i00").inner_text(".hero")


@pytest.mark.parametrize(
    ("hash_", "said"),
    [
        ("#/item/i99", "unknown item_id 'i99'"),
        ("#/nowhere", "no view “nowhere”"),
        ("#/file/7", "choose it again"),
        ("#/compare?taste=1", "liked nothing yet"),
    ],
)
def test_what_is_not_there_is_one_line(address, open_page, hash_, said):
    line = message(open_page(address, hash_))
    assert said in line
    assert "\n" not in line


@pytest.mark.parametrize(
    ("name", "kind", "data", "said"),
    [
        ("notes.pdf", "application/pdf", b"%PDF", "no picture, sound or clip"),
        ("broken.jpg", "image/jpeg", b"\xff\xd8\xff\xe0" + bytes(200), "broken.jpg: not a readable image"),
        ("large.wav", "audio/wav", bytes(3_000_000), "at most 2 MB"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_line(bare_address, open_page, name, kind, data, said):
    page = open_page(bare_address)
    choose(page, name, kind, data)
    line = message(page)
    assert said in line
    assert "\n" not in line
    if page.locator("#query-file").is_visible():
        page.click("#query-file button")
    page.fill("#query", "red")
    page.wait_for_selector("#message", state="hidden")
    page.wait_for_selector("h1:text('“red”')")


def test_a_server_that_is_gone_is_one_line(world, explore, open_page):
    with explore(world["hybrid"]) as address:
        page = open_page(address)
    page.fill("#query", "red")
    page.keyboard.press("Enter")
    assert "does not answer. Start `mmrec explore` again" in message(page)


def test_without_a_dataset_the_page_says_how_to_get_pictures(bare_address, open_page):
    page = open_page(bare_address)
    assert "--data DATASET" in page.inner_text("main")
    assert page.locator(".card img, .play").count() == 0
    assert page.locator(".card .badge").count() > 0
    assert page.locator("[data-tab=compare]").count() == 0


def test_an_empty_answer_is_said_and_removed_items_are_not_shown(world, explore, open_page, tmp_path):
    export = shutil.copytree(world["hybrid"], tmp_path / "export")
    removed = tmp_path / "removed.txt"
    removed.write_text("".join(f"i{n:02d}\n" for n in range(24) if f"i{n:02d}" != ITEM))
    assert main(["index", str(export), "--remove", str(removed)]) == 0
    with explore(export) as address:
        page = open_page(address)
        assert ids(page) == [ITEM]
        assert "1 item of" in page.inner_text("main")
        card(page, ITEM).locator(".title").click()
        page.wait_for_selector("text=Nothing found.")


def test_a_model_without_text_says_so(world, explore, open_page):
    with explore(world["ids"]) as address:
        page = open_page(address)
        assert page.locator("#query").is_disabled()
        assert "reads neither texts nor media" in page.get_attribute("#query", "placeholder")


def test_everything_goes_by_keyboard(address, open_page, engine):
    page = open_page(address)

    def focused() -> str:
        return page.evaluate("document.activeElement.closest('[data-id]')?.dataset.id")

    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "skip"
    page.keyboard.press("Enter")
    page.keyboard.press("ArrowDown")
    first, second, *_ = shown = ids(page)
    assert focused() == first
    page.keyboard.press("ArrowRight")
    assert focused() == second
    assert page.evaluate("getComputedStyle(document.activeElement.closest('.card')).outlineStyle") == "solid"
    columns = page.evaluate("getComputedStyle(document.querySelector('.grid')).gridTemplateColumns").count("px")
    page.keyboard.press("ArrowDown")
    assert focused() == shown[1 + columns]
    page.keyboard.press("l")
    wait_ids(page, hits(engine.recommend(History(items=(shown[1 + columns],)), NEXT)), "#rail .row")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("d")
    page.wait_for_selector(f'.card[data-id="{second}"] .dislike[aria-pressed=true]')
    page.keyboard.press("Enter")
    wait_ids(page, hits(engine.search(Query(items=(second,)), K)))
    page.keyboard.press("Backspace")
    wait_ids(page, shown)
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "query"
    page.keyboard.type("?/l")
    assert page.input_value("#query") == "?/l"
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    assert page.locator("dialog[open]").is_visible()


@pytest.mark.parametrize("hash_", ["", "#/search?q=red", f"#/item/{CLIP}", "#/map", f"#/compare?item={ITEM}", "#/you"])
def test_a_phone_needs_no_sideways_scrolling(address, open_page, hash_):
    page = open_page(address, hash_, viewport=SIDES, has_touch=True, is_mobile=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= SIDES["width"]
    bar = page.locator("#tabs").bounding_box()
    assert bar["y"] + bar["height"] == pytest.approx(SIDES["height"], abs=1)
    small = page.eval_on_selector_all(
        "button, #tabs a",
        "all => all.map(one => one.getBoundingClientRect())"
        ".filter(box => box.width && (box.height < 24 || box.width < 24)).length",
    )
    assert small == 0, "targets of at least 24 pixels (WCAG 2.2, 2.5.8)"


def test_on_a_phone_recommendations_are_a_view(address, open_page):
    page = open_page(address, viewport=SIDES)
    like(page, ITEM)
    page.wait_for_function("() => document.querySelector('#count').textContent === '1'")
    assert page.locator("#rail").is_hidden()
    page.click("[data-tab=you]")
    page.wait_for_selector("#rail .row")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast(address, open_page, scheme):
    page = open_page(address, color_scheme=scheme)
    pairs = [(ink, on) for ink in ("ink", "soft", "accent", "bad") for on in ("bg", "surface", "sunken")]
    pairs += [("accent-deep", "tint"), ("soft", "tint"), ("ink", "tint"), ("on-accent", "accent"), ("surface", "bad")]
    names = sorted({name for pair in pairs for name in pair})
    style = page.evaluate(
        "names => names.map(name => getComputedStyle(document.documentElement).getPropertyValue('--' + name).trim())",
        names,
    )
    light = {name: luminance(value) for name, value in zip(names, style, strict=True)}
    ratios = {
        pair: (max(light[pair[0]], light[pair[1]]) + 0.05) / (min(light[pair[0]], light[pair[1]]) + 0.05)
        for pair in pairs
    }
    assert {pair: round(ratio, 2) for pair, ratio in ratios.items() if ratio < 4.5} == {}


def luminance(colour: str) -> float:
    """Relative luminance of #rrggbb (WCAG 2.2)."""
    assert re.fullmatch("#[0-9a-f]{6}", colour), colour
    parts = [int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_the_map_shows_titles_and_opens_items(address, open_page):
    page = open_page(address, f"#/map?item={ITEM}")
    page.wait_for_selector(".tip:not([hidden])")
    assert "green thing 5" in page.inner_text(".tip")
    assert "24 items" in page.inner_text("main")
    legend = page.locator(".legend button")
    assert {text.split()[0] for text in legend.all_inner_texts()} >= {"green", "blue", "grey"}
    legend.first.click()
    assert legend.first.get_attribute("aria-pressed") == "true"
    legend.first.click()
    page.select_option("select", "modalities")
    assert any("image" in text for text in legend.all_inner_texts())
    box = page.locator("canvas").bounding_box()
    middle = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.move(*middle)
    page.mouse.click(*middle)
    page.wait_for_selector("h1:text('green thing 5')")
    page.go_back()
    page.wait_for_selector(".tip:not([hidden])")
    page.focus("canvas")
    page.keyboard.press("ArrowLeft")
    page.wait_for_function("() => !document.querySelector('.tip').textContent.includes('green thing 5')")
    page.keyboard.press("Enter")
    page.wait_for_selector(".hero")


def test_two_exports_are_asked_the_same(address, open_page, engine, world):
    from mmrec.engine import Engine

    page = open_page(address, f"#/compare?item={ITEM}")
    lists = [hits(one.search(Query(items=(ITEM,)), 20)) for one in (engine, Engine.open(world["ids"]))]
    for place, expected in enumerate(lists):
        wait_ids(page, expected, f".column:nth-child({place + 1}) .row")
    shared = set(lists[0]) & set(lists[1])
    assert set(ids(page, ".column:nth-child(1) .row.shared")) == shared
    text = page.inner_text(".agreement")
    assert f"{len(shared)} of 20" in text
    at_5 = len(set(lists[0][:5]) & set(lists[1][:5])) / 5
    assert f"overlap@5\n{at_5:.2f}".replace("0.", ".") in text
    page.locator(".column:nth-child(2) .row .title").first.click()
    page.wait_for_function("item => location.hash.includes(item)", arg=lists[1][0])


def test_what_one_export_cannot_answer_is_said_in_its_column(address, open_page):
    page = open_page(address, "#/compare?q=red")
    page.wait_for_selector(".failed")
    assert "does not encode 'text'" in page.inner_text(".column:nth-child(2)")
    assert page.locator(".column:nth-child(1) .row").count() == 20
