package dev.tokensidecar;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.math.BigDecimal;
import java.math.BigInteger;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.function.Executable;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** Claims lose nothing, and are nothing that they are not. */
class ClaimsTest {
    private static final BigInteger MOST = new BigInteger("18446744073709551615");

    @Test
    void claimsAreExact() {
        Claims claims = Claims.of("{\"most\":18446744073709551615,\"long\":9223372036854775807,"
                + "\"least\":-9223372036854775808,\"name\":\"Zoë 🦊\",\"amount\":1.50,\"big\":1e2,"
                + "\"no\":null,\"yes\":true,\"list\":[1,\"a\",[]],\"deep\":{\"n\":9007199254740993}}");
        assertEquals(MOST, claims.bigInteger("most"));
        assertEquals(Long.MAX_VALUE, claims.integer("long"));
        assertEquals(BigInteger.valueOf(Long.MAX_VALUE), claims.bigInteger("long"));
        assertEquals(Long.MIN_VALUE, claims.integer("least"));
        assertEquals("Zoë 🦊", claims.text("name"));
        assertEquals(new BigDecimal("1.50"), claims.decimal("amount"));
        assertEquals(new BigDecimal("1e2"), claims.decimal("big"));
        assertEquals(new BigDecimal(MOST), claims.decimal("most"));
        assertTrue(claims.bool("yes"));
        assertTrue(claims.has("no"));
        assertFalse(claims.has("none"));
        assertEquals(List.of(1L, "a", List.of()), claims.list("list"));
        assertEquals(9007199254740993L, claims.object("deep").integer("n"));
        assertEquals("{\"n\":9007199254740993}", claims.object("deep").json());
        assertThrows(UnsupportedOperationException.class, () -> claims.asMap().clear());
    }

    @Test
    void claimOfAnotherKindIsAnErrorThatNamesItAndNotItsValue() {
        Claims claims = Claims.of("{\"text\":\"7\",\"one\":1,\"whole\":1.0,\"most\":18446744073709551615,\"no\":null}");
        List<Executable> wrong = List.of(
                () -> claims.integer("text"),
                () -> claims.text("one"),
                () -> claims.integer("whole"),
                () -> claims.bigInteger("whole"),
                () -> claims.integer("most"),
                () -> claims.text("no"),
                () -> claims.bool("one"),
                () -> claims.list("text"),
                () -> claims.object("text"));
        for (Executable each : wrong) {
            ClaimsException error = assertThrows(ClaimsException.class, each);
            assertTrue(error.getMessage().contains(" is not "), error.getMessage());
            assertFalse(error.getMessage().matches(".*[0-9]{4}.*"), error.getMessage());
        }
        ClaimsException error = assertThrows(ClaimsException.class, () -> claims.text("TEXT"));
        assertEquals("the claim TEXT is missing", error.getMessage());
    }

    @ParameterizedTest
    @ValueSource(
            strings = {
                "",
                "{",
                "[]",
                "null",
                "\"text\"",
                "{} {}",
                "{\"a\":1,}",
                "{a:1}",
                "{'a':1}",
                "{\"a\":NaN}",
                "{\"a\":01}",
                "{\"a\":+1}",
                "{\"a\":TRUE}",
                "{\"a\":1} // x",
                "{\"role\":\"guest\",\"role\":\"admin\"}",
                "{\"role\":null,\"r\\u006fle\":\"admin\"}"
            })
    void whatIsNoObjectOrSaysSomethingTwiceIsNotRead(String text) {
        assertThrows(ClaimsException.class, () -> Claims.of(text).asMap());
    }

    @Test
    void plainValuesAreWrittenExactly() {
        Map<String, Object> claims = new LinkedHashMap<>();
        claims.put("most", MOST);
        claims.put("least", Long.MIN_VALUE);
        claims.put("int", 7);
        claims.put("amount", new BigDecimal("1.50"));
        claims.put("half", 0.5);
        claims.put("text", "<ä&\"🦊");
        claims.put("no", null);
        claims.put("list", Arrays.asList(true, null, Map.of("a", List.of())));
        String json = Claims.write(claims);
        assertEquals(
                "{\"most\":18446744073709551615,\"least\":-9223372036854775808,\"int\":7,\"amount\":1.50,\"half\":0.5,"
                        + "\"text\":\"<ä&\\\"🦊\",\"no\":null,\"list\":[true,null,{\"a\":[]}]}",
                json);
        assertEquals(MOST, Claims.of(json).bigInteger("most"));
    }

    @Test
    void valuesWithoutAJsonFormAreAnInvalidRequest() {
        IssueRequest request = IssueRequest.of("ada", "orders");
        for (Object value : List.of(Double.NaN, Float.POSITIVE_INFINITY, new Object(), 'c', Map.of(1, 2))) {
            InvalidRequestException error =
                    assertThrows(InvalidRequestException.class, () -> request.withClaims(Map.of("a", value)));
            assertEquals("claims_json", error.fields().get(0).name());
        }
    }
}
