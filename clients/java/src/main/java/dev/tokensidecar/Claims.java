package dev.tokensidecar;

import com.google.gson.Strictness;
import com.google.gson.stream.JsonReader;
import com.google.gson.stream.JsonToken;
import com.google.gson.stream.JsonWriter;
import java.io.IOException;
import java.io.StringReader;
import java.io.StringWriter;
import java.io.UncheckedIOException;
import java.math.BigDecimal;
import java.math.BigInteger;
import java.util.ArrayList;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * Claims: the JSON text as it was signed, and a view of it in which no number loses a digit.
 *
 * <p>The getters take a claim that is there and of that kind, and nothing else: no text for a number, no default. For a
 * JSON library of your own, read {@link #json()}.
 */
public final class Claims {
    private static final BigInteger LEAST_LONG = BigInteger.valueOf(Long.MIN_VALUE);
    private static final BigInteger MOST_LONG = BigInteger.valueOf(Long.MAX_VALUE);

    private final String json;
    private volatile Map<String, Object> parsed; // once somebody asks

    private Claims(String json, Map<String, Object> parsed) {
        this.json = json;
        this.parsed = parsed;
    }

    /**
     * Claims of a text, for tests of what uses them.
     *
     * @param json an object; what is none is noticed at the first look into it
     * @return the claims
     */
    public static Claims of(String json) {
        return new Claims(json, null);
    }

    /**
     * The text, byte for byte as it was signed or sealed.
     *
     * @return a JSON object
     */
    public String json() {
        return json;
    }

    /**
     * All of them.
     *
     * @return by name: {@link String}, {@link Boolean}, null, {@link Long}, {@link BigInteger} for what no long holds,
     *     {@link BigDecimal} for what has a point or an exponent, {@link List}, {@link Map}. Nobody can change it
     * @throws ClaimsException where the text is no JSON object or has a name twice
     */
    public Map<String, Object> asMap() {
        Map<String, Object> known = parsed;
        if (known == null) {
            known = parse(json);
            parsed = known;
        }
        return known;
    }

    /**
     * Whether there is such a claim, be it null.
     *
     * @param name of the claim
     * @return whether it is there
     */
    public boolean has(String name) {
        return asMap().containsKey(name);
    }

    /**
     * A text.
     *
     * @param name of the claim
     * @return its value
     * @throws ClaimsException where there is none of that kind
     */
    public String text(String name) {
        return get(name, String.class, "a text");
    }

    /**
     * A boolean.
     *
     * @param name of the claim
     * @return its value
     * @throws ClaimsException where there is none of that kind
     */
    public boolean bool(String name) {
        return get(name, Boolean.class, "a boolean");
    }

    /**
     * An integer that a long holds.
     *
     * @param name of the claim
     * @return its value
     * @throws ClaimsException where there is none of that kind
     */
    public long integer(String name) {
        return get(name, Long.class, "an integer of 64 bits");
    }

    /**
     * An integer of any size.
     *
     * @param name of the claim
     * @return its value
     * @throws ClaimsException where there is none of that kind
     */
    public BigInteger bigInteger(String name) {
        Object value = asMap().get(name);
        return value instanceof Long small ? BigInteger.valueOf(small) : get(name, BigInteger.class, "an integer");
    }

    /**
     * A number, with the digits that it was written with.
     *
     * @param name of the claim
     * @return its value
     * @throws ClaimsException where there is none of that kind
     */
    public BigDecimal decimal(String name) {
        Object value = asMap().get(name);
        return value instanceof Long || value instanceof BigInteger
                ? new BigDecimal(bigInteger(name))
                : get(name, BigDecimal.class, "a number");
    }

    /**
     * A list, as {@link #asMap} has it.
     *
     * @param name of the claim
     * @return its value
     * @throws ClaimsException where there is none of that kind
     */
    public List<?> list(String name) {
        return get(name, List.class, "a list");
    }

    /**
     * An object.
     *
     * @param name of the claim
     * @return its members; its text is written anew
     * @throws ClaimsException where there is none of that kind
     */
    public Claims object(String name) {
        Map<?, ?> members = get(name, Map.class, "an object");
        Map<String, Object> copy = new LinkedHashMap<>();
        members.forEach((key, value) -> copy.put((String) key, value));
        return new Claims(write(copy), Collections.unmodifiableMap(copy));
    }

    private <T> T get(String name, Class<T> kind, String wanted) {
        Object value = asMap().get(name);
        if (!kind.isInstance(value)) {
            throw new ClaimsException("the claim " + name + (has(name) ? " is not " + wanted : " is missing"));
        }
        return kind.cast(value);
    }

    @Override
    public boolean equals(Object other) {
        return other instanceof Claims claims && claims.json.equals(json);
    }

    @Override
    public int hashCode() {
        return json.hashCode();
    }

    /** Leaves out the claims. */
    @Override
    public String toString() {
        return "Claims[" + json.length() + " characters]";
    }

    private static Map<String, Object> parse(String json) {
        try (JsonReader reader = new JsonReader(new StringReader(json))) {
            reader.setStrictness(Strictness.STRICT);
            Map<String, Object> claims = readObject(reader);
            if (reader.peek() != JsonToken.END_DOCUMENT) {
                throw new ClaimsException("the claims are more than one JSON value");
            }
            return claims;
        } catch (IOException | IllegalStateException | NumberFormatException bad) {
            throw new ClaimsException("the claims are no JSON object"); // without the parser's words: it may quote
        }
    }

    private static Map<String, Object> readObject(JsonReader reader) throws IOException {
        Map<String, Object> members = new LinkedHashMap<>();
        reader.beginObject();
        while (reader.hasNext()) {
            String name = reader.nextName();
            boolean twice = members.containsKey(name);
            members.put(name, read(reader));
            if (twice) {
                throw new ClaimsException("the claims have a name twice");
            }
        }
        reader.endObject();
        return Collections.unmodifiableMap(members);
    }

    private static Object read(JsonReader reader) throws IOException {
        switch (reader.peek()) {
            case BEGIN_OBJECT:
                return readObject(reader);
            case BEGIN_ARRAY:
                List<Object> items = new ArrayList<>();
                reader.beginArray();
                while (reader.hasNext()) {
                    items.add(read(reader));
                }
                reader.endArray();
                return Collections.unmodifiableList(items);
            case STRING:
                return reader.nextString();
            case BOOLEAN:
                return reader.nextBoolean();
            case NULL:
                reader.nextNull();
                return null;
            default: // a number, or what nextString refuses
                return number(reader.nextString());
        }
    }

    private static Object number(String text) {
        if (text.indexOf('.') >= 0 || text.indexOf('e') >= 0 || text.indexOf('E') >= 0) {
            return new BigDecimal(text);
        }
        BigInteger value = new BigInteger(text);
        boolean isLong = value.compareTo(LEAST_LONG) >= 0 && value.compareTo(MOST_LONG) <= 0;
        return isLong ? (Object) value.longValue() : value;
    }

    /** A JSON object of plain Java values. */
    static String write(Map<String, ?> claims) {
        StringWriter text = new StringWriter();
        try (JsonWriter writer = new JsonWriter(text)) {
            writer.setStrictness(Strictness.STRICT);
            writer.setSerializeNulls(true);
            write(writer, claims);
        } catch (IOException impossible) {
            throw new UncheckedIOException(impossible); // there is no such thing in memory
        }
        return text.toString();
    }

    private static void write(JsonWriter writer, Object value) throws IOException {
        if (value instanceof Map<?, ?> members) {
            writer.beginObject();
            for (Map.Entry<?, ?> member : members.entrySet()) {
                if (!(member.getKey() instanceof String name)) {
                    throw TokenSidecarException.refused("claims_json", "the name of a claim is a text");
                }
                writer.name(name);
                write(writer, member.getValue());
            }
            writer.endObject();
        } else if (value instanceof Iterable<?> items) {
            writer.beginArray();
            for (Object item : items) {
                write(writer, item);
            }
            writer.endArray();
        } else if (value instanceof String text) {
            writer.value(text);
        } else if (value instanceof Boolean bool) {
            writer.value(bool);
        } else if (value == null) {
            writer.nullValue();
        } else if (value instanceof Double || value instanceof Float) {
            double number = ((Number) value).doubleValue();
            if (!Double.isFinite(number)) {
                throw TokenSidecarException.refused("claims_json", "JSON has no such number as " + number);
            }
            writer.value((Number) value);
        } else if (value instanceof Long
                || value instanceof Integer
                || value instanceof Short
                || value instanceof Byte
                || value instanceof BigInteger
                || value instanceof BigDecimal) {
            writer.value((Number) value);
        } else {
            throw TokenSidecarException.refused(
                    "claims_json",
                    value.getClass().getName() + " has no JSON form: give text, a number, a list or a map");
        }
    }
}
