"""Structured output as the official clients ask for it, with models of pydantic; and an engine that
drains while answers are being held to something."""
import json
import os
import signal
import sys
import threading
from enum import Enum
from typing import List, Optional, Union

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "helpers"))
import anthropic
import openai
import shapes
from env import Stack, done, ok, same
import pydantic
from pydantic import BaseModel

ASK = [{"role": "user", "content": "What is the weather in Paris?"}]


class Unit(str, Enum):
    celsius = "celsius"
    fahrenheit = "fahrenheit"


class Step(BaseModel):
    done: bool
    value: Union[int, None]
    unit: Unit


class Plan(BaseModel):
    title: Unit
    steps: List[Step]
    next: Optional["Plan"]


class GetWeather(BaseModel):
    """Get the weather."""
    unit: Unit
    days: int


def retry(fn, n=30):
    """The first answer that came to its end; an answer may be cut, and then the clients say so."""
    for seed in range(n):
        try:
            return fn(seed)
        except (openai.LengthFinishReasonError, pydantic.ValidationError):
            continue
    return None


def chats(client):
    def parse(seed):
        return client.chat.completions.parse(
            model="demo", messages=ASK, response_format=Plan, temperature=1, seed=seed,
            max_tokens=700).choices[0]

    c = retry(parse)
    ok(c is not None and isinstance(c.message.parsed, Plan), f"chat.completions.parse: {c}")

    def stream(seed):
        with client.chat.completions.stream(model="demo", messages=ASK, response_format=Step,
                                            temperature=1, seed=seed, max_tokens=300) as s:
            for _ in s:
                pass
            return s.get_final_completion().choices[0]

    c = retry(stream)
    ok(c is not None and isinstance(c.message.parsed, Step), f"its stream: {c}")

    def tools(seed):
        c = client.chat.completions.parse(
            model="demo", messages=ASK, tools=[openai.pydantic_function_tool(GetWeather)],
            tool_choice="required", temperature=1, seed=seed, max_tokens=300).choices[0]
        return c.message.tool_calls

    t = retry(tools)
    ok(t and all(isinstance(x.function.parsed_arguments, GetWeather) for x in t),
       f"strict tools of pydantic: {t}")


def responses(client):
    def parse(seed):
        r = client.responses.parse(model="demo", input=ASK, text_format=Plan, temperature=1,
                                   max_output_tokens=700, extra_body={"seed": seed})
        return r if r.status == "completed" else retry_again()

    def retry_again():
        raise pydantic.ValidationError.from_exception_data("cut", [])

    r = retry(parse)
    ok(r is not None and isinstance(r.output_parsed, Plan), "responses.parse")
    ok(r.text.format.type == "json_schema" and r.text.format.name == "Plan",
       "the answer shows its format")

    def stream(seed):
        with client.responses.stream(model="demo", input=ASK, text_format=Step, temperature=1,
                                     max_output_tokens=300, extra_body={"seed": seed}) as s:
            for _ in s:
                pass
            return s.get_final_response().output_parsed

    ok(isinstance(retry(stream), Step), "its stream")
    r = client.responses.create(
        model="demo", input="Weather?", temperature=0, max_output_tokens=300, tool_choice="required",
        parallel_tool_calls=False, tools=[openai.pydantic_function_tool(Step)["function"]
                                          | {"type": "function"}])
    ok(isinstance(Step.model_validate_json(r.output[0].arguments), Step), "strict tools")


def messages(client):
    def parse(seed):
        ask = [{"role": "user", "content": f"What is the weather in Paris on day {seed}?"}]
        return client.messages.parse(model="demo", messages=ask, max_tokens=300,
                                     output_format=Step).parsed_output

    ok(isinstance(retry(parse), Step), "anthropic's messages.parse")
    schema = Step.model_json_schema()

    def tools(seed):
        r = client.messages.create(
            model="demo", messages=ASK, max_tokens=300, tool_choice={"type": "any"},
            tools=[{"name": "step", "input_schema": schema, "strict": True}])
        return [Step.model_validate(b.input) for b in r.content]

    ok(retry(tools), "strict tools")
    old = client.post("/v1/messages", cast_to=object, body={
        "model": "demo", "messages": ASK, "max_tokens": 300, "temperature": 0,
        "output_format": {"type": "json_schema", "schema": {"enum": ["one", 2]}}})
    ok(json.loads(old["content"][0]["text"]) in ("one", 2), "the older output_format")
    try:
        client.messages.create(model="demo", max_tokens=9, output_config={"format": {
            "type": "json_schema", "schema": schema}}, messages=ASK + [
                {"role": "assistant", "content": "{"}])
        ok(False, "a format and a beginning are refused")
    except anthropic.BadRequestError as e:
        ok("messages[1]" in str(e), f"a format and a beginning are refused: {e}")


def draining(s, client):
    """Answers that are under way at SIGTERM come to their end."""
    got, begun = [], threading.Semaphore(0)

    def run(seed):
        text, finish = "", None
        for c in client.chat.completions.create(
                model="demo", messages=ASK, stream=True, max_tokens=500, temperature=1, seed=seed,
                extra_body={"regex": "[a-z ]{200,300}!"}):
            if text == "" and c.choices[0].delta.content:
                begun.release()
            text += c.choices[0].delta.content or ""
            finish = c.choices[0].finish_reason or finish
        got.append((text, finish))

    threads = [threading.Thread(target=run, args=(i,)) for i in range(6)]
    for t in threads:
        t.start()
    for _ in threads:
        begun.acquire(timeout=60)
    s.engine.send_signal(signal.SIGTERM)
    for t in threads:
        t.join(100)
    same(len(got), 6, "six answers came to their end")
    ok(all(f == "length" or (f == "stop" and 201 <= len(t) <= 301 and t[-1] == "!")
           for t, f in got), "each is whole, or cut by max_tokens")
    ok(shapes.wait(lambda: s.engine.poll() is not None), "the engine has gone")
    same(s.engine.returncode, 0, "in peace")


with Stack() as s:
    openai_client = openai.OpenAI(base_url=s.url + "/v1", api_key="none", max_retries=0)
    chats(openai_client)
    responses(openai_client)
    messages(anthropic.Anthropic(base_url=s.url, api_key="none", max_retries=0))
    draining(s, openai_client)
done()
