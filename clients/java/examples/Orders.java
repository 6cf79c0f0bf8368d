import dev.tokensidecar.Authorized;
import dev.tokensidecar.Client;
import dev.tokensidecar.Grant;
import dev.tokensidecar.Protect;
import dev.tokensidecar.ProtectFilter;
import dev.tokensidecar.TokenSource;
import dev.tokensidecar.ValidatedToken;
import jakarta.servlet.http.HttpServlet;
import jakarta.servlet.http.HttpServletRequest;
import jakarta.servlet.http.HttpServletResponse;
import java.io.IOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.file.Files;
import org.apache.catalina.Context;
import org.apache.catalina.LifecycleException;
import org.apache.catalina.startup.Tomcat;
import org.apache.tomcat.util.descriptor.web.FilterDef;
import org.apache.tomcat.util.descriptor.web.FilterMap;

/** An HTTP service whose route /orders is protected, and a call to it. The argument is the port, of 127.0.0.1. */
public class Orders extends HttpServlet {
    record OrderClaims(String tenant) {
        static OrderClaims of(ValidatedToken token) {
            return new OrderClaims(token.claims().text("tenant"));
        }
    }

    @Override
    protected void doGet(HttpServletRequest request, HttpServletResponse response) throws IOException {
        Authorized<OrderClaims> caller = ProtectFilter.caller(request, OrderClaims.class);
        response.getWriter()
                .println("orders of " + caller.token().subject() + " at "
                        + caller.claims().tenant());
    }

    public static void main(String[] arguments) throws Exception {
        int port = Integer.parseInt(arguments[0]);
        Client client = Client.connect();
        serve(
                port,
                new ProtectFilter(Protect.with(client, "orders")
                        .withRequiredScopes("read")
                        .withClaims(OrderClaims::of)));
        System.out.println("a token without a tenant: " + call(client, port));
        System.out.println("listening on 127.0.0.1:" + port);
    }

    /** As another service would call this one; its tokens name no tenant. */
    private static int call(Client client, int port) throws IOException, InterruptedException {
        TokenSource source = new TokenSource(client);
        HttpRequest.Builder request = HttpRequest.newBuilder(URI.create("http://127.0.0.1:" + port + "/orders"));
        source.authorize(request, Grant.of("web", "orders").withScopes("read"));
        return HttpClient.newHttpClient()
                .send(request.build(), HttpResponse.BodyHandlers.discarding())
                .statusCode();
    }

    private static void serve(int port, ProtectFilter filter) throws IOException, LifecycleException {
        Tomcat tomcat = new Tomcat();
        tomcat.setBaseDir(Files.createTempDirectory("orders").toString());
        tomcat.setHostname("127.0.0.1");
        tomcat.setPort(port);
        tomcat.getConnector().setProperty("address", "127.0.0.1");
        Context context = tomcat.addContext("", null);
        Tomcat.addServlet(context, "orders", new Orders());
        context.addServletMapping("/orders", "orders");
        FilterDef definition = new FilterDef();
        definition.setFilterName("protect");
        definition.setFilter(filter);
        context.addFilterDef(definition);
        FilterMap map = new FilterMap();
        map.setFilterName("protect");
        map.addURLPattern("/orders");
        context.addFilterMap(map);
        tomcat.start();
    }
}
